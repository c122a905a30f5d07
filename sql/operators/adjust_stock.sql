-- Adds p_delta units to a product's total stock, or removes them; refused if fewer units would
-- be left than are held, awaiting or paid.
--
-- Locks    the idempotency key, then the product, to commit.
-- Replays  a key that has adjusted the stock returns what that call returned.
-- Refuses  SA001 product_not_found, SA008 idempotency_key_reused, SA009 invalid_request,
--          SA010 stock_in_use, SA029 wrong_shard; 40001 above READ COMMITTED if the product has changed, or the key
--          was used, since the snapshot.
create or replace function flashsale.adjust_stock(
  p_product_id bigint, p_delta int, p_idempotency_key text default null,
  out product_id bigint, out total_stock int, out available_stock int)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  v_arguments jsonb := jsonb_build_object('product_id', p_product_id, 'delta', p_delta);
  v_key       text := (flashsale_data.slot_keys(array[p_idempotency_key], array[p_product_id]))[1];
  v_replayed  flashsale_data.operations := flashsale_data.replayed_operation('adjust_stock', v_key, v_arguments);
  v_ctid      tid;
  v_available int;
  v_total     int;
begin
  if v_replayed.product_id is not null then
    product_id := v_replayed.product_id;
    total_stock := v_replayed.total_stock;
    available_stock := v_replayed.available_stock;
    return;
  end if;
  if p_product_id is null or p_delta is null or p_delta = 0 then
    perform flashsale_data.raise_refusal('SA009', 'A stock adjustment needs a product and a number other than 0.');
  end if;
  perform flashsale_data.reject_stale_snapshot(p_product_ids => array[p_product_id]);
  select l.ctids[1], l.available[1] into v_ctid, v_available
  from flashsale_data.lock_stock(array[p_product_id]) l;
  if v_ctid is null then
    perform flashsale_data.raise_refusal(flashsale_data.not_found('SA001', p_product_id), format('There is no product %s.', p_product_id));
  end if;
  -- A statement of its own: the one that waited for the lock has an older snapshot.
  select s.total_stock into v_total
  from flashsale_data.stock s
  where s.ctid = v_ctid;
  if v_available::bigint + p_delta < 0 then -- guard: stock-in-use
    perform flashsale_data.raise_refusal('SA010', format('Product %s has %s of %s units available; %s cannot be removed.',
      p_product_id, v_available, v_total, -p_delta::bigint));
  elsif v_total::bigint + p_delta > 2147483647 then
    perform flashsale_data.raise_refusal('SA009', 'A product has at most 2,147,483,647 units.');
  end if;

  update flashsale_data.stock s
  set version = s.version + 1, total_stock = s.total_stock + p_delta
  where s.ctid = v_ctid
  returning s.product_id, s.total_stock, s.total_stock - s.held - s.awaiting - s.paid
    into product_id, total_stock, available_stock;
  perform flashsale_data.announce_ledger_write();
  insert into flashsale_data.events (kind, at, product_id, available_delta)
  values ('stock_adjusted', clock_timestamp(), p_product_id, p_delta);
  -- guard: adjust-key-recorded
  perform flashsale_data.record_operation('adjust_stock', v_key, v_arguments, product_id,
    total_stock, available_stock);
end
$$;
comment on function flashsale.adjust_stock(bigint, int, text) is 'Adds units to a product''s stock, or removes them';
revoke execute on function flashsale.adjust_stock(bigint, int, text) from public;
grant execute on function flashsale.adjust_stock(bigint, int, text) to flashsale_ops;
