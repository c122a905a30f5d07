"""Time passes without waiting for it.

To move the clock on by so many seconds is to move every instant that is on record back by as many: nothing in
the database can tell the two apart, since all that it compares with the clock is on record.
"""

import psycopg

TICK = 3600
"""seconds; long beside the time that a test takes"""

MOVE_ON = """
update flashsale_data.holds
  set placed_at = placed_at - interval '{s} s', expires_at = expires_at - interval '{s} s';
update flashsale_data.orders
  set created_at = created_at - interval '{s} s', payment_due_at = payment_due_at - interval '{s} s';
update flashsale_data.payments
  set received_at = received_at - interval '{s} s', wait_ends_at = wait_ends_at - interval '{s} s';
update flashsale_data.events set at = at - interval '{s} s';
update flashsale_data.stock set lapsed_through = lapsed_through - interval '{s} s';
with gone as (delete from flashsale_data.lapses returning *)
insert into flashsale_data.lapses
select product_id, lapses_at - interval '{s} s', held, awaiting from gone order by lapses_at
"""


def move_on(conn: psycopg.Connection, ticks: int) -> None:
    """Let `ticks` pass, and a second more: what was given so many ticks to live has lapsed for sure."""
    conn.execute(MOVE_ON.format(s=ticks * TICK + 1))
