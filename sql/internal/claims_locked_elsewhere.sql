-- For each request, whether another transaction has locked the claims of its buyer in the limit
-- group that its product has now, under the product's lock. Null if no request needs such a lock.
-- Waits for no lock: those that lock_claims() has locked are free to this transaction, and of the
-- others it takes what is free.
--
-- Above READ COMMITTED the snapshot does not show what has become of the buyer's claims on the
-- other products of the group. Their stock rows raise 40001 if they have changed since, and
-- 55P03 if another transaction is changing them.
create or replace function flashsale_data.claims_locked_elsewhere(
  p_product_ids bigint[], p_slots int[], p_buyers text[])
returns boolean[]
language plpgsql
as $$
declare
  v_keys text[] := flashsale_data.claim_keys(p_product_ids, p_slots, p_buyers);
begin
  if v_keys is null then
    return null;
  end if;
  if flashsale_data.keeps_snapshot() then -- guard: claims-in-snapshot
    perform from flashsale_data.stock s
    where (s.product_id, s.version) in (
      select m.product_id, (
        select n.version from flashsale_data.stock n where n.product_id = m.product_id
        order by n.version desc limit 1)
      from flashsale_data.products p
      join flashsale_data.products m on m.limit_group = p.limit_group
      where p.product_id = any (p_product_ids))
      and not s.product_id = any (p_product_ids)
    for share nowait;
  end if;
  return array(
    select request.key is not null
           and not pg_try_advisory_xact_lock(hashtext('flashsale.claim'), hashtext(request.key)) -- guard: claim-lock
    from unnest(v_keys) with ordinality as request (key, i)
    order by request.i);
end
$$;
comment on function flashsale_data.claims_locked_elsewhere(bigint[], int[], text[]) is
  'For each request, whether the claims of its buyer in the limit group are locked elsewhere';
