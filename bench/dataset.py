"""Inserts what long sales leave in the tables: the rows that the functions would write, in few statements."""

from datetime import datetime
from threading import Thread

import psycopg

from api.schemas.fields import MAX_HOLD_ID
from bench.database import Database

HOLDS_AN_INSTANT = 1000
"""holds that lapse together, a tenth of a second's worth"""

# Active ones evenly among the finished, as random ids put them.
_PLAN = """
create unlogged table bench.dataset as
select %(step)s * (n - 1) + 1 + (random() * (%(step)s - 2))::bigint as hold_id, active,
       case when active then 'active' when n %% 2 = 0 then 'expired' else 'released' end as status,
       case when not active then now() - interval '1 day' - n / %(together)s * interval '100 milliseconds'
            else coalesce(%(lapse_at)s, now() + '12 hours' + n / %(together)s * interval '100 milliseconds')
       end as expires_at
from (select n, n * %(active)s / %(all)s > (n - 1) * %(active)s / %(all)s as active
      from generate_series(1, %(all)s::bigint) n) n
"""
_HOLDS = """
insert into flashsale_data.holds (hold_id, product_id, qty, status, placed_at, expires_at, currency, price)
select d.hold_id, 1, 1, d.status, d.expires_at - interval '1 day',
       flashsale_data.expiry_instant(d.expires_at), p.currency, p.price
from bench.dataset d cross join flashsale_data.products p
where p.product_id = 1
"""
_EVENTS = """
insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
select 'hold_placed', expires_at - interval '1 day', 1, hold_id, -1 from bench.dataset
union all
select 'hold_' || status, expires_at, 1, hold_id, 1 from bench.dataset where not active
"""
_COUNTERS = """
with lapsing as (
  insert into flashsale_data.lapses (product_id, lapses_at, held)
  select product_id, expires_at, sum(qty) from flashsale_data.holds where status = 'active' group by 1, 2
  returning held
)
update flashsale_data.stock set held = (select sum(held) from lapsing), version = version + 1
"""


def fill(database: Database, active: int, finished: int, lapse_at: datetime | None = None) -> None:
    """Holds of product 1, one unit each, with their ledger, after start_over().

    :param active: holds that lapse in 12 hours, HOLDS_AN_INSTANT in each tenth of a second
    :param finished: holds that expired or were released, half of each
    :param lapse_at: the active ones lapse all at this instant instead
    """
    database.execute(
        _PLAN,
        {
            "active": active,
            "all": active + finished,
            "step": MAX_HOLD_ID // (active + finished),
            "together": HOLDS_AN_INSTANT * (active + finished) // active,
            "lapse_at": lapse_at,
        },
    )
    # Inserts in random order leave pages this full; an index built in order would be half as large.
    database.execute("alter index flashsale_data.holds_pkey set (fillfactor = 70)")
    (by_expiry,) = database.execute("select pg_get_indexdef('flashsale_data.holds_by_expiry'::regclass)")[0]
    database.execute("drop index flashsale_data.holds_by_expiry")
    ledger = Thread(target=_insert, args=(database, _EVENTS))
    ledger.start()
    _insert(database, _HOLDS)
    database.execute(by_expiry)
    ledger.join()
    database.execute("alter index flashsale_data.holds_pkey reset (fillfactor)")
    database.execute(_COUNTERS)
    database.execute("drop table bench.dataset")
    # As autovacuum would have.
    database.execute("vacuum (analyze) flashsale_data.holds, flashsale_data.events")


def _insert(database: Database, statement: str) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        # No trigger: the foreign keys are met.
        connection.execute("set session_replication_role = replica")
        connection.execute(statement)
