"""Tables as replication needs them, and keys that no library's order of text can lose."""

from flashsale.database.roles import YOYO_SCHEMA
from tests.support.sale_steps import create_product, one, order, pay, place_hold


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


def test_text_is_indexed_in_the_order_of_bytes(db):
    others = db.execute(
        """
        select i.indexrelid::regclass::text, a.attname
          from pg_index i join pg_class c on c.oid = i.indrelid
          cross join lateral unnest(i.indcollation::oid[]) with ordinality as key (collation_id, n)
          join pg_attribute a on a.attrelid = i.indexrelid and a.attnum = key.n
         where c.relnamespace = 'flashsale_data'::regnamespace
           and key.collation_id not in (0, 'pg_catalog."C"'::regcollation)
        """
    ).fetchall()
    assert others == []


def test_the_view_of_payments_has_the_keys_as_they_are_stored(db):
    pay(db, order(db, create_product(db)), key="Žofie-1")
    assert one(db, "select idempotency_key from flashsale.payments") == "Žofie-1"
