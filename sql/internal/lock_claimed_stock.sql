-- Locks the claims that buyers have in limit groups, then the products of these requests: see
-- lock_claims() and lock_stock(), whose ctids and effective_nows it returns. p_product_ids are
-- distinct ids, ascending; p_slots and p_buyers line up by request. locked_claims: see
-- claims_locked_elsewhere(); null if no request has a buyer.
create or replace function flashsale_data.lock_claimed_stock(
  p_product_ids bigint[], p_slots int[], p_buyers text[],
  out ctids tid[], out effective_nows timestamptz[], out locked_claims boolean[])
language plpgsql
as $$
declare
  v_has_buyers boolean := cardinality(array_remove(p_buyers, null)) > 0;
begin
  if v_has_buyers then
    perform flashsale_data.lock_claims(p_product_ids, p_slots, p_buyers); -- guard: claim-before-stock
  end if;
  select l.ctids, l.effective_nows into ctids, effective_nows
  from flashsale_data.lock_stock(p_product_ids) l;
  if v_has_buyers then
    locked_claims := flashsale_data.claims_locked_elsewhere(p_product_ids, p_slots, p_buyers);
  end if;
end
$$;
comment on function flashsale_data.lock_claimed_stock(bigint[], int[], text[]) is
  'Locks the claims of buyers, then stock rows; their ctids and times';
