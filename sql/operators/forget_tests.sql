-- Removes test products, those of p_product_ids or (null) all, with all that was sold of them:
-- holds, orders, payments, stored webhooks of these orders, idempotency keys, events. The books of
-- the other products do not change. One row for each test product: whether it is forgotten, and how
-- many rows were removed. Ids that no product has are ignored, so that the call can be repeated.
--
-- A product of which another transaction has locked an order or a hold is not forgotten: its
-- available units are removed from its stock instead, so that its sale comes to an end. Call again.
-- A webhook that comes for a forgotten order is stored, as for any unknown order, and one that
-- captured money is a refund due when its wait ends: forget a product when its provider is done.
-- Readers of the ledger lose those of its events that they have not read.
--
-- Holds, orders and events have no index by product, which would slow every hold down: a call reads
-- these tables whole, holds and orders once more for each product that it removes.
--
-- Locks    the products, to commit: nothing is added to them meanwhile. One that is locked elsewhere
--          is left for the next call, as in lock_stock(). Then, without waiting for any of them,
--          since the transaction that has locked one may wait for the product, their orders, holds
--          and stored webhooks; then the inbox row. One purge() or forget_tests() at a time.
-- Refuses  SA009 invalid_request, also for a product that is not a test product, and above READ
--          COMMITTED, where rows newer than the snapshot are not seen.
create or replace function flashsale.forget_tests(p_product_ids bigint[] default null)
returns table (product_id bigint, forgotten boolean, holds bigint, orders bigint, payments bigint, events bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off
as $$
#variable_conflict use_column
declare
  v_product_ids bigint[];
  v_ctids       tid[];
  v_available   int[];
  v_locked      bigint[];
  v_in_use      bigint[];
  v_forgotten   bigint[];
  v_real        bigint;
  v_stored      int;
  -- by product of v_product_ids
  v_holds       bigint[];
  v_orders      bigint[];
  v_payments    bigint[];
  v_events      bigint[];
begin
  if exists (select from unnest(p_product_ids) as id where id is null) then
    perform flashsale_data.raise_refusal('SA009', 'A test product has an id.');
  elsif flashsale_data.keeps_snapshot() then -- guard: forget-isolation
    perform flashsale_data.raise_refusal('SA009', 'Tests are forgotten at READ COMMITTED.');
  end if;
  select min(p.product_id) into v_real
  from flashsale_data.products p
  where p.product_id = any (p_product_ids) and not p.is_test; -- guard: real-product-refused
  if v_real is not null then
    perform flashsale_data.raise_refusal('SA009', format('Product %s is not a test product.', v_real));
  end if;

  -- 1 Lock the products; a call that waits for one holds no lock that a sale waits for
  -- A purge deletes events, too: the two would wait for each other's.
  perform pg_advisory_xact_lock(hashtext('flashsale.purge'), 0); -- guard: forget-without-purge
  v_product_ids := array(
    select p.product_id from flashsale_data.products p
    where (p_product_ids is null or p.product_id = any (p_product_ids))
      and p.is_test -- guard: real-products-stay
    order by 1);
  if v_product_ids = '{}' then
    return;
  end if;
  select l.ctids, l.available into v_ctids, v_available from flashsale_data.lock_stock(v_product_ids) l;
  v_locked := array(
    select product.id from unnest(v_product_ids, v_ctids) as product (id, ctid) where product.ctid is not null);

  -- 2 Lock their rows; where one is locked elsewhere the product is in use
  with locked_orders as materialized (
    select o.product_id from flashsale_data.orders o
    where o.product_id = any (v_locked)
    for update skip locked -- guard: forget-waits-for-no-order
  ), locked_holds as materialized (
    select h.product_id from flashsale_data.holds h
    where h.product_id = any (v_locked)
    for update skip locked -- guard: forget-waits-for-no-hold
  ), locked_webhooks as materialized (
    -- Their wait had ended when their order was created, and a sweep had locked them.
    select o.product_id
    from flashsale_data.orders o
    join flashsale_data.payments p on p.order_id = o.order_id and p.result || '' = 'stored'
    where o.product_id = any (v_locked)
    for update of p skip locked -- guard: forget-waits-for-no-webhook
  ), found as (
    select 'order' as kind, o.product_id, count(*) as rows from flashsale_data.orders o
    where o.product_id = any (v_locked) group by 2
    union all
    select 'hold', h.product_id, count(*) from flashsale_data.holds h
    where h.product_id = any (v_locked) group by 2
    union all
    select 'webhook', o.product_id, count(*)
    from flashsale_data.orders o
    join flashsale_data.payments p on p.order_id = o.order_id and p.result || '' = 'stored'
    where o.product_id = any (v_locked) group by 2
  ), locked as (
    select 'order' as kind, l.product_id, count(*) as rows from locked_orders l group by 2
    union all
    select 'hold', l.product_id, count(*) from locked_holds l group by 2
    union all
    select 'webhook', l.product_id, count(*) from locked_webhooks l group by 2
  )
  select coalesce(array_agg(distinct f.product_id), '{}') into v_in_use
  from (select * from found except select * from locked) f;
  v_forgotten := array(
    select id from unnest(v_locked) as id where not id = any (v_in_use)); -- guard: in-use-kept

  -- 3 Take what is in use off sale
  if exists (select from unnest(v_product_ids, v_available) as product (id, available)
             where product.id = any (v_in_use) and product.available > 0) then
    perform flashsale_data.announce_ledger_write();
    with withdrawn as (
      update flashsale_data.stock s
      set version = s.version + 1, total_stock = s.total_stock - product.available
      from unnest(v_product_ids, v_ctids, v_available) as product (id, ctid, available)
      where s.ctid = product.ctid and product.id = any (v_in_use)
        and product.available > 0 -- guard: forget-withdraws
      returning product.id, product.available
    )
    insert into flashsale_data.events (kind, at, product_id, available_delta)
    select 'stock_adjusted', clock_timestamp(), w.id, -w.available -- guard: withdrawn-in-ledger
    from withdrawn w;
  end if;

  -- 4 Remove the others: what refers to another table's rows before these rows
  delete from flashsale_data.claims c where c.product_id = any (v_forgotten);
  with removed as (
    delete from flashsale_data.events e
    where e.product_id = any (v_forgotten)
       -- of webhooks that came before their order
       or e.product_id is null and e.order_id in (
         select o.order_id from flashsale_data.orders o
         where o.product_id = any (v_forgotten)) -- guard: early-events-forgotten
    returning coalesce(e.product_id, (
      select o.product_id from flashsale_data.orders o where o.order_id = e.order_id)) as product_id
  )
  select array_agg(r.rows order by product.i) into v_events
  from unnest(v_product_ids) with ordinality as product (id, i)
  cross join lateral (select count(*) as rows from removed where removed.product_id = product.id) r;
  delete from flashsale_data.refunds r
  where r.payment_key in (
    select p.idempotency_key from flashsale_data.payments p
    join flashsale_data.orders o on o.order_id = p.order_id
    where o.product_id = any (v_forgotten) and p.status = 'success'); -- guard: refunds-forgotten
  with removed as (
    delete from flashsale_data.payments p
    using flashsale_data.orders o
    where o.order_id = p.order_id and o.product_id = any (v_forgotten)
    returning o.product_id, p.result
  )
  select array_agg(r.rows order by product.i), sum(r.stored)::int into v_payments, v_stored
  from unnest(v_product_ids) with ordinality as product (id, i)
  cross join lateral (
    select count(*) as rows, count(*) filter (where removed.result = 'stored') as stored
    from removed where removed.product_id = product.id) r;
  with removed as (
    delete from flashsale_data.orders o where o.product_id = any (v_forgotten) returning o.product_id
  )
  select array_agg(r.rows order by product.i) into v_orders
  from unnest(v_product_ids) with ordinality as product (id, i)
  cross join lateral (select count(*) as rows from removed where removed.product_id = product.id) r;
  with removed as (
    delete from flashsale_data.holds h where h.product_id = any (v_forgotten) returning h.product_id
  )
  select array_agg(r.rows order by product.i) into v_holds
  from unnest(v_product_ids) with ordinality as product (id, i)
  cross join lateral (select count(*) as rows from removed where removed.product_id = product.id) r;
  delete from flashsale_data.lapses l where l.product_id = any (v_forgotten);
  delete from flashsale_data.stock s where s.product_id = any (v_forgotten);
  delete from flashsale_data.ledger_carried c where c.product_id = any (v_forgotten);
  delete from flashsale_data.operations o where o.product_id = any (v_forgotten);
  delete from flashsale_data.products p where p.product_id = any (v_forgotten);
  -- The inbox row is the last lock of all.
  -- guard: forgotten-left-inbox
  update flashsale_data.inbox set stored = stored - v_stored where v_stored > 0;

  return query
  select product.id, product.id = any (v_forgotten), product.holds, product.orders, product.payments,
         product.events
  from unnest(v_product_ids, v_holds, v_orders, v_payments, v_events)
    as product (id, holds, orders, payments, events)
  order by 1;
end
$$;
comment on function flashsale.forget_tests(bigint[]) is
  'Removes test products with all that was sold of them; the shop''s books stay';
revoke execute on function flashsale.forget_tests(bigint[]) from public;
grant execute on function flashsale.forget_tests(bigint[]) to flashsale_ops;
