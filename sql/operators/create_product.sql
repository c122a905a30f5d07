-- Puts a product on sale with p_stock units. The price is kept with the minor
-- units of its currency (ISO 4217): 99 USD is 99.00. A test product (p_is_test) is sold
-- as any other to callers that know its id, but it is not listed, is left out of metrics,
-- views and the events of readers, and forget_tests() removes it. Its terms are those of
-- change_terms(). p_slot: the slot of its id, where the shop has several; null: that of its limit group, or
-- the next one that this shard owns.
--
-- Locks    the shard, then the idempotency key, to commit: its slots do not move meanwhile.
-- Replays  a key that has created a product returns its id; the stock and price that it has by
--          now count for nothing.
-- Refuses  SA008 idempotency_key_reused, SA009 invalid_request, SA029 wrong_shard; 40001 above READ COMMITTED if
--          the key was used since the snapshot.
create or replace function flashsale.create_product(
  p_name text, p_stock int, p_price numeric, p_currency text default 'USD',
  p_idempotency_key text default null, p_is_test boolean default false,
  p_starts_at timestamptz default null, p_ends_at timestamptz default null, p_max_per_buyer int default null,
  p_limit_group text default null, p_hold_time interval default null, p_payment_window interval default null,
  p_listed boolean default null, p_max_per_hold int default null, p_slot int default null, out product_id bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_arguments jsonb := jsonb_build_object(
    'name', p_name, 'stock', p_stock, 'price', p_price, 'currency', p_currency)
    || case when p_is_test then '{"is_test": true}' else '{}' end::jsonb -- guard: test-of-key
    -- Keys of calls without terms are as they were before there were any.
    || jsonb_strip_nulls(jsonb_build_object(
      'starts_at', p_starts_at at time zone 'UTC', 'ends_at', p_ends_at at time zone 'UTC',
      'max_per_buyer', p_max_per_buyer, 'limit_group', p_limit_group,
      'hold_time', extract(epoch from p_hold_time), 'payment_window', extract(epoch from p_payment_window),
      'listed', p_listed, 'max_per_hold', p_max_per_hold)); -- guard: terms-of-key
  v_shard     flashsale_data.shard;
  v_slot      int;
  v_key       text := p_idempotency_key;
  v_replayed  flashsale_data.operations;
  v_error     text;
  v_product   flashsale_data.products;
  v_ctid      tid;
begin
  select * into v_shard from flashsale_data.shard for share; -- guard: create-in-own-slot
  v_slot := flashsale_data.slot_of_new_product(v_shard, p_slot, p_limit_group, p_idempotency_key);
  if v_shard.slots > 1 and length(v_key) between 1 and 255 then
    v_key := flashsale_data.slot_key(v_key, v_slot);
  end if;
  v_replayed := flashsale_data.replayed_operation('create_product', v_key, v_arguments);
  if v_replayed.product_id is not null then
    product_id := v_replayed.product_id;
    return;
  end if;
  if p_name is null or length(p_name) not between 1 and 200 then
    perform flashsale_data.raise_refusal('SA009', 'A product has a name of 1 to 200 characters.');
  elsif not flashsale_data.is_visible(p_name) then -- guard: name-visible
    perform flashsale_data.raise_refusal('SA009', 'The name of a product has at least one visible character.');
  elsif p_stock is null or p_stock < 0 then
    perform flashsale_data.raise_refusal('SA009', 'A product has a stock of 0 or more.');
  elsif p_currency is null or p_currency !~ '^[A-Z]{3}$' then
    perform flashsale_data.raise_refusal('SA009', 'A currency is an ISO 4217 code, as in USD.');
  elsif p_is_test is null then
    perform flashsale_data.raise_refusal('SA009', 'p_is_test is true or false.');
  end if;
  v_error := flashsale_data.price_error(p_price, p_currency);
  if v_error is not null then
    perform flashsale_data.raise_refusal('SA009', v_error);
  end if;

  product_id := flashsale_data.new_product_id(v_shard, v_slot);
  insert into flashsale_data.products (product_id, name, price, currency, created_at, is_test)
  overriding system value
  values (product_id, p_name, round(p_price, flashsale_data.minor_units(p_currency)), p_currency, clock_timestamp(),
          p_is_test);
  insert into flashsale_data.stock as s (product_id, total_stock) values (product_id, p_stock)
  returning s.ctid into v_ctid;
  perform flashsale_data.announce_ledger_write();
  insert into flashsale_data.events (kind, at, product_id, available_delta)
  values ('product_created', clock_timestamp(), product_id, p_stock);
  select p.* into v_product from flashsale_data.products p where p.product_id = create_product.product_id;
  perform flashsale_data.write_terms(v_product, flashsale_data.merge_terms(v_product, p_starts_at, p_ends_at,
    p_max_per_buyer, p_limit_group, p_hold_time, p_payment_window, p_listed, p_max_per_hold), v_ctid, 'terms_changed');
  -- guard: create-key-recorded
  perform flashsale_data.record_operation('create_product', v_key, v_arguments, product_id);
end
$$;
comment on function flashsale.create_product(text, int, numeric, text, text, boolean, timestamptz, timestamptz, int, text, interval, interval, boolean, int, int) is
  'Puts a product on sale; returns its id';
revoke execute on function flashsale.create_product(text, int, numeric, text, text, boolean, timestamptz, timestamptz, int, text, interval, interval, boolean, int, int) from public;
grant execute on function flashsale.create_product(text, int, numeric, text, text, boolean, timestamptz, timestamptz, int, text, interval, interval, boolean, int, int) to flashsale_ops;
