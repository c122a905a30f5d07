-- Locks the claims that buyers have in limit groups, until commit: what one buyer does with
-- several products of a group happens in turn, although each product has a lock of its own. The
-- lock is advisory, because a buyer may have no claim yet. As lock_stock(): never waits for one
-- claim while it holds another. The groups are read before the products are locked, and may
-- change meanwhile: claims_locked_elsewhere() decides.
create or replace function flashsale_data.lock_claims(p_product_ids bigint[], p_slots int[], p_buyers text[])
returns void
language plpgsql
as $$
declare
  v_keys text[] := flashsale_data.claim_keys(p_product_ids, p_slots, p_buyers);
begin
  if v_keys is not null then
    perform flashsale_data.lock_keys('claim', v_keys); -- guard: claim-lock
  end if;
end
$$;
comment on function flashsale_data.lock_claims(bigint[], int[], text[]) is
  'Locks what buyers have in limit groups, before the products';
