-- Sets a product's price for the holds that are placed from then on: once it has committed, no
-- hold is placed at the old price. A hold keeps the price at which it was placed, and its order
-- costs that. The currency stays. Repeated, it changes nothing. Returns the price as it is kept,
-- with the minor units of the currency.
--
-- Locks    the product, to commit: a hold reads the price under the same lock.
-- Refuses  SA001 product_not_found, SA009 invalid_request; 40001 above READ COMMITTED if the
--          product has changed since the snapshot.
create or replace function flashsale.change_price(
  p_product_id bigint, p_price numeric,
  out product_id bigint, out price numeric, out currency text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  v_ctid  tid;
  v_price numeric;
  v_error text;
begin
  if p_product_id is null then
    perform flashsale_data.raise_refusal('SA009', 'A price needs a product.');
  end if;
  perform flashsale_data.reject_stale_snapshot(p_product_ids => array[p_product_id]);
  select l.ctids[1] into v_ctid
  from flashsale_data.lock_stock(array[p_product_id]) l; -- guard: price-lock
  if v_ctid is null then
    perform flashsale_data.raise_refusal(flashsale_data.not_found('SA001', p_product_id), format('There is no product %s.', p_product_id));
  end if;
  -- A statement of its own: the one that waited for the lock has an older snapshot.
  select p.product_id, p.price, p.currency into product_id, v_price, currency
  from flashsale_data.products p
  where p.product_id = p_product_id;
  v_error := flashsale_data.price_error(p_price, currency);
  if v_error is not null then
    perform flashsale_data.raise_refusal('SA009', v_error);
  end if;
  price := round(p_price, flashsale_data.minor_units(currency));
  if price = v_price then
    return;
  end if;

  update flashsale_data.products p
  set price = change_price.price
  where p.product_id = p_product_id;
  -- A caller above READ COMMITTED whose snapshot has the old price gets 40001 at the lock.
  update flashsale_data.stock s
  set version = s.version + 1
  where s.ctid = v_ctid; -- guard: price-in-snapshot
  perform flashsale_data.announce_ledger_write();
  insert into flashsale_data.events (kind, at, product_id, data)
  values ('price_changed', clock_timestamp(), p_product_id,
          jsonb_build_object('price', price::text, 'old_price', v_price::text, 'currency', currency));
end
$$;
comment on function flashsale.change_price(bigint, numeric) is
  'Sets a product''s price for the holds that are placed from then on';
revoke execute on function flashsale.change_price(bigint, numeric) from public;
grant execute on function flashsale.change_price(bigint, numeric) to flashsale_ops;
