"""Tables as replication needs them."""

from flashsale.database.roles import YOYO_SCHEMA
from tests.support.sale_steps import create_product, order, pay, place_hold


def test_every_table_has_a_replica_identity(db):
    without = db.execute(
        """
        select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('flashsale', 'flashsale_data', %s) and c.relkind in ('r', 'p')
           and case c.relreplident
                 when 'd' then not exists (
                   select from pg_index i where i.indrelid = c.oid and i.indisprimary)
                 when 'i' then not exists (
                   select from pg_index i where i.indrelid = c.oid and i.indisreplident)
                 else c.relreplident = 'n' end
        """,
        (YOYO_SCHEMA,),
    ).fetchall()
    assert without == []


def test_a_publication_for_all_tables_does_not_stop_the_sale(db):
    with db.transaction(force_rollback=True):
        db.execute("set local client_min_messages = error")  # wal_level
        db.execute("create publication all_of_it for all tables")
        product = create_product(db)
        place_hold(db, product)
        assert pay(db, order(db, product)) == "applied"
        db.execute("select flashsale.adjust_stock(%s, 5)", (product,))
        db.execute("select flashsale.expire_due()")
        db.execute("select flashsale.change_settings('2 minutes')")
        db.execute("select flashsale.purge('0')")
