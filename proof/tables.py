"""The tables between transactions, in the form of proof/model.py."""

import json

import psycopg
from psycopg.pq import ExecStatus

from proof.clock_shift import TICK
from proof.requests import send_prepared

# Not truncate: every function would be planned again.
EMPTY = """
delete from flashsale_data.refunds; delete from flashsale_data.awaited_payments;
delete from flashsale_data.payments; delete from flashsale_data.events; delete from flashsale_data.lapses;
delete from flashsale_data.orders; delete from flashsale_data.holds; delete from flashsale_data.stock;
delete from flashsale_data.claims; delete from flashsale_data.ledger_carried;
delete from flashsale_data.operations; delete from flashsale_data.rejected_webhooks;
delete from flashsale_data.purge_state; delete from flashsale_data.products;
update flashsale_data.inbox set stored = 0
"""

STATE = f"""
select jsonb_build_object(
  'units', (
    select jsonb_object_agg(s.product_id, array[s.available_stock, s.held, s.awaiting, s.paid])
    from flashsale.list_stock(p_tests => true) s),
  'prices', (select jsonb_object_agg(p.product_id, p.price::text) from flashsale_data.products p),
  'prices_held', (select jsonb_object_agg(h.hold_id, h.price::text) from flashsale_data.holds h),
  'terms', (
    select jsonb_object_agg(t.product_id,
      jsonb_build_array(t.sale_status, t.max_per_buyer, t.limit_group, t.max_per_hold))
    from flashsale.terms t),
  'claimed', (
    select jsonb_object_agg(c.name, c.units)
    from (
      select c.scope || ' ' || c.buyer as name, sum(c.qty) as units
      from flashsale_data.claims c where c.ends_at > clock_timestamp() group by 1) c),
  'adjustments', (
    select jsonb_object_agg(o.idempotency_key, o.total_stock) from flashsale_data.operations o
    where o.operation = 'adjust_stock'),
  'holds', (
    select jsonb_object_agg(h.hold_id,
      case when h.status = 'active' and h.expires_at <= clock_timestamp() then 'expired' else h.status end)
    from flashsale_data.holds h),
  'orders', (
    select jsonb_object_agg(o.order_id,
      case when o.status = 'pending_payment' and o.payment_due_at <= clock_timestamp()
           then array['cancelled', 'payment_overdue'] else array[o.status, o.cancel_reason] end)
    from flashsale_data.orders o),
  'marked', (
    select jsonb_object_agg(m.id, m.word)
    from (
      select h.hold_id, 'expired' from flashsale_data.holds h where h.status = 'expired'
      union all
      select o.order_id, 'overdue' from flashsale_data.orders o where o.cancel_reason = 'payment_overdue'
    ) m (id, word)),
  'unswept', (
    select jsonb_object_agg(p.idempotency_key,
      case p.status when 'success' then 'refund_due' else 'expired' end)
    from flashsale_data.payments p
    where p.result = 'stored' and p.wait_ends_at <= clock_timestamp()),
  'payments', (
    select jsonb_object_agg(p.idempotency_key, array[
      case when p.result = 'stored' and p.wait_ends_at <= clock_timestamp() then 'refund_due'
           else p.result end,
      p.order_status])
    from (
      select idempotency_key, result, order_status, status, wait_ends_at from flashsale.payments
      union all
      select idempotency_key, result, order_status, status, wait_ends_at from flashsale.test_payments) p
    where p.result <> 'stored' or p.status = 'success' or p.wait_ends_at > clock_timestamp()),
  'inbox', (
    select jsonb_object_agg(i.idempotency_key, i.place)
    from (
      select p.idempotency_key, row_number() over (order by p.arrival) as place
      from flashsale_data.payments p
      where p.result = 'stored' and p.wait_ends_at > clock_timestamp()) i),
  'ticks_left', (
    select jsonb_object_agg(p.idempotency_key,
      ceil(extract(epoch from p.wait_ends_at - interval '1 second' - clock_timestamp()) / {TICK})::int)
    from flashsale_data.payments p
    where p.result = 'stored' and p.wait_ends_at > clock_timestamp()),
  'settings', (
    select jsonb_build_object('inbox_keep', (extract(epoch from s.inbox_keep) / {TICK})::int)
    from flashsale_data.settings s),
  'refunds_due', (
    select jsonb_object_agg(r.idempotency_key, jsonb_build_array(r.order_id, round(r.amount, 2)::text))
    from flashsale.refunds_due r),
  'refunds', (
    select jsonb_object_agg(r.refund_key,
      jsonb_build_array(r.payment_key, round(r.amount, 2)::text, r.currency, r.kind, r.status,
        r.status = 'requested' and r.lease_ends_at > clock_timestamp()))
    from flashsale.refunds r),
  'money', (
    select jsonb_object_agg(m.currency, jsonb_build_array(
      round(m.captured, 2)::text, round(m.kept, 2)::text, round(m.due, 2)::text, round(m.refunded, 2)::text))
    from (
      select part.currency, sum(part.captured) as captured, sum(part.kept) as kept, sum(part.due) as due,
             sum(part.refunded) as refunded
      from (
        select coalesce(p.currency, o.currency) as currency, coalesce(p.amount, o.amount) as captured,
               case when keeps.it then o.amount - p.refunded else 0 end as kept,
               case when keeps.it then 0 else coalesce(p.amount, o.amount) - p.refunded end as due,
               0 as refunded
        from flashsale_data.payments p left join flashsale_data.orders o on o.order_id = p.order_id
        cross join lateral (select coalesce(p.result = 'applied' and o.status = 'paid', false) as it) keeps
        where p.status = 'success' and p.result <> 'no_change'
          and (p.result <> 'stored' or p.wait_ends_at <= clock_timestamp())
          and (p.amount is not null or coalesce(p.currency, o.currency) = o.currency)
        union all
        select coalesce(p.currency, o.currency), 0, 0, 0, r.amount
        from flashsale_data.refunds r
        join flashsale_data.payments p on p.idempotency_key = r.payment_key
        left join flashsale_data.orders o on o.order_id = p.order_id
        where r.status = 'done' and p.status = 'success' and p.result <> 'no_change'
          and (p.result <> 'stored' or p.wait_ends_at <= clock_timestamp())
          and (p.amount is not null or coalesce(p.currency, o.currency) = o.currency)) part
      group by 1) m),
  'wrong', (select jsonb_object_agg(a.check_name, a.detail) from proof.audit() a))::text
""".encode()

# audit() is planned at each call, which takes longer than to run it on a few rows. This is its text, in a
# function that keeps its plan.
KEEP_PLAN = """
create schema proof;
do $do$
begin
  execute 'create function proof.audit() returns table (check_name text, detail text) language plpgsql stable'
    || ' set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set jit = off as $$'
    || ' begin return query ' || (select prosrc from pg_proc where oid = 'flashsale.audit()'::regprocedure)
    || ' end $$';
end
$do$
"""


def keep_plan(conn: psycopg.Connection) -> None:
    """Needed once in each database before `state()`."""
    conn.execute(KEEP_PLAN)


def state(conn: psycopg.Connection) -> dict[str, dict]:
    """As `Model.state()` has it; `wrong` is what audit() finds."""
    send_prepared(conn, STATE)
    result = conn.pgconn.get_result()
    assert result.status == ExecStatus.TUPLES_OK, result.error_message
    text = result.get_value(0, 0)
    assert conn.pgconn.get_result() is None
    return {name: found or {} for name, found in json.loads(text).items()}
