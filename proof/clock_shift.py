"""Time passes without waiting.

To advance the clock by so many seconds is to move every recorded instant back by as many: nothing in the
database can distinguish the two, since all that is compared with the clock is recorded.
"""

import psycopg

TICK = 3600
"""seconds; long beside the time that a test takes"""

SHIFT = """
update flashsale_data.holds
  set placed_at = placed_at - interval '{s} s', expires_at = expires_at - interval '{s} s';
update flashsale_data.orders
  set created_at = created_at - interval '{s} s', payment_due_at = payment_due_at - interval '{s} s';
update flashsale_data.payments
  set received_at = received_at - interval '{s} s', wait_ends_at = wait_ends_at - interval '{s} s';
update flashsale_data.events set at = at - interval '{s} s';
update flashsale_data.refunds
  set requested_at = requested_at - interval '{s} s', lease_ends_at = lease_ends_at - interval '{s} s',
    recorded_at = recorded_at - interval '{s} s';
update flashsale_data.awaited_payments set first_refund_at = first_refund_at - interval '{s} s';
update flashsale_data.claims set ends_at = ends_at - interval '{s} s';
update flashsale_data.products
  set starts_at = starts_at - interval '{s} s', ends_at = ends_at - interval '{s} s'
  where starts_at is not null or ends_at is not null;
update flashsale_data.events
  set data = data || jsonb_build_object(
    'starts_at', (data ->> 'starts_at')::timestamptz - interval '{s} s',
    'ends_at', (data ->> 'ends_at')::timestamptz - interval '{s} s')
  where kind in ('terms_changed', 'sale_paused', 'sale_resumed', 'sale_cancelled');
update flashsale_data.stock set lapsed_through = lapsed_through - interval '{s} s';
with removed as (delete from flashsale_data.lapses returning *)
insert into flashsale_data.lapses
select product_id, lapses_at - interval '{s} s', held, awaiting from removed order by lapses_at
"""


def advance_clock(conn: psycopg.Connection, ticks: int) -> None:
    """By `ticks`, and a second more: whatever was to last so many ticks has lapsed."""
    conn.execute(SHIFT.format(s=ticks * TICK + 1))
