-- Holds as they stand at this instant, with the order each became. A hold whose
-- time is up reads as expired whether or not anybody has tidied it. Unknown ids
-- have no row.
create or replace function flashsale_data.find_holds(p_hold_ids bigint[])
returns table (hold_id bigint, product_id bigint, qty int, status text, expires_at timestamptz,
               order_id bigint, order_status text)
language sql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
  select h.hold_id, h.product_id, h.qty,
         case when h.status = 'active' and h.expires_at <= greatest(clock_timestamp(), s.lapsed_through)
              then 'expired' else h.status end,
         h.expires_at, o.order_id,
         case when o.status = 'pending_payment'
               and o.payment_due_at <= greatest(clock_timestamp(), s.lapsed_through)
              then 'cancelled' else o.status end
  from flashsale_data.holds h
  cross join lateral (
    select s.lapsed_through from flashsale_data.stock s
    where s.product_id = h.product_id
    order by s.version desc limit 1) s
  left join flashsale_data.orders o on h.status = 'ordered' and o.hold_id = h.hold_id
  where h.hold_id = any (p_hold_ids);
$$;
comment on function flashsale_data.find_holds(bigint[]) is 'Holds as they stand now, with their orders';
