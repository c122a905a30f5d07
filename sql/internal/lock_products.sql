-- Locks the products of an operator's call, all of them, in ascending order, until commit; returns
-- their ids and the ctids of their stock rows. Unlike lock_stock(), it waits for one product while
-- it holds others: a call that serves buyers never does, so that such calls cannot wait for each
-- other in a circle.
--
-- Refuses SA001 product_not_found, SA009 invalid_request, SA029 wrong_shard; 40001 above READ COMMITTED if a product
-- has changed since the snapshot.
create or replace function flashsale_data.lock_products(p_product_ids bigint[], out ids bigint[], out ctids tid[])
language plpgsql
as $$
declare
  v_ctid tid;
begin
  if p_product_ids is null or cardinality(p_product_ids) not between 1 and 1000
     or exists (select from unnest(p_product_ids) as id where id is null) then
    perform flashsale_data.raise_refusal('SA009', 'A call is about 1 to 1,000 products.');
  end if;
  ids := array(select distinct id from unnest(p_product_ids) as id order by id);
  perform flashsale_data.reject_stale_snapshot(p_product_ids => ids);
  for v_i in 1 .. cardinality(ids) loop
    select l.ctids[1] into v_ctid
    from flashsale_data.lock_stock(ids[v_i:v_i]) l; -- guard: terms-lock
    if v_ctid is null then
      perform flashsale_data.raise_refusal(flashsale_data.not_found('SA001', ids[v_i]), format('There is no product %s.', ids[v_i]));
    end if;
    ctids[v_i] := v_ctid;
  end loop;
end
$$;
comment on function flashsale_data.lock_products(bigint[]) is 'Locks all products of an operator''s call';
