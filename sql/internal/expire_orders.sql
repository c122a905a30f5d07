-- Records at most p_limit pending orders of these lapsed instants (pairs of product and time)
-- as cancelled for payment_overdue; returns how many. Otherwise as expire_holds().
create or replace function flashsale_data.expire_orders(
  p_product_ids bigint[], p_instants timestamptz[], p_limit int)
returns int
language plpgsql
as $$
declare
  v_count int;
begin
  perform flashsale_data.announce_ledger_write();
  with overdue as materialized (
    select o.order_id, o.hold_id, o.product_id, o.qty, o.payment_due_at, o.buyer
    from unnest(p_product_ids, p_instants) as d (product_id, lapses_at)
    join flashsale_data.orders o on o.payment_due_at = d.lapses_at and o.product_id = d.product_id
    where o.status = 'pending_payment'
    limit p_limit
    for no key update of o skip locked
  ), unclaimed as (
    -- Ended claims count no more. One that is locked is being moved to another group, and stays.
    delete from flashsale_data.claims c
    where c.hold_id in (
      select k.hold_id
      from overdue d
      join flashsale_data.claims k on k.hold_id = d.hold_id
      where d.buyer is not null
      for update of k skip locked)
  ), cancelled as (
    update flashsale_data.orders o
    set status = 'cancelled', cancel_reason = 'payment_overdue'
    from overdue d
    where o.order_id = d.order_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, available_delta, data)
    select 'order_cancelled', clock_timestamp(), d.product_id, d.hold_id, d.order_id, d.qty,
           '{"cancel_reason": "payment_overdue"}'
    from overdue d
  ), swept as (
    update flashsale_data.lapses l
    set awaiting = l.awaiting - d.qty
    from (select d.product_id, d.payment_due_at, sum(d.qty)::int as qty from overdue d group by 1, 2) d
    where l.product_id = d.product_id and l.lapses_at = d.payment_due_at
  )
  select count(*)::int into v_count from overdue;
  return v_count;
end
$$;
comment on function flashsale_data.expire_orders(bigint[], timestamptz[], int) is
  'Records pending orders of lapsed instants as cancelled; returns how many';
