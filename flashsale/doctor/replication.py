"""What replication leaves to be done: subscriptions, publications, sequences."""

from psycopg import errors, sql

from flashsale.database.connection import Connection
from flashsale.database.roles import YOYO_SCHEMA
from flashsale.doctor.finding import Finding, Findings

_SUBSCRIPTIONS = """
    select distinct s.subname from pg_subscription s
      join pg_subscription_rel r on r.srsubid = s.oid
      join pg_class c on c.oid = r.srrelid
     where c.relnamespace = 'flashsale_data'::regnamespace order by 1
"""
# With the table: a column that an update may name, and what identifies its rows.
_PUBLISHED = """
    select n.nspname, c.relname,
           (select a.attname from pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attidentity = ''
               and a.attgenerated = '' order by a.attnum limit 1),
           exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary),
           (select k.relname from pg_index i join pg_class k on k.oid = i.indexrelid
             where i.indrelid = c.oid and i.indisunique and i.indimmediate and i.indpred is null
               and not exists (select from unnest(i.indkey::int2[]) key (attnum)
                                 left join pg_attribute a
                                   on a.attrelid = c.oid and a.attnum = key.attnum and a.attnotnull
                                where a.attnum is null)
             order by k.relname limit 1),
           (select p.pubname from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
             where r.prrelid = c.oid and (r.prqual is not null or r.prattrs is not null)
             order by 1 limit 1)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = any (%s) and c.relkind = 'r'
       and exists (select from pg_publication_tables p
                    where p.schemaname = n.nspname and p.tablename = c.relname)
     order by 1, 2
"""


def subscriptions(conn: Connection) -> Findings:
    """Whether this database is a copy that a subscription writes into."""
    found = [name for (name,) in conn.execute(_SUBSCRIPTIONS)]
    for name in found:
        yield Finding(
            "subscriptions", "failed",
            f"subscription {name} copies another sale into this database: it must not be sold from here",
            f"after the switch to this database: drop subscription {sql.Identifier(name).as_string(conn)}",
        )  # fmt: skip
    if not found:
        yield Finding("subscriptions", "ok", "this database is not a copy of another")


def publications(conn: Connection) -> Findings:
    """Whether publications keep the sale from changing rows.

    PostgreSQL decides that when it starts a statement, so it is asked to explain one.
    """
    tables = conn.execute(_PUBLISHED, (["flashsale_data", YOYO_SCHEMA],)).fetchall()
    is_ok = True
    for schema, name, column, has_key, index, publication in tables:
        table = sql.Identifier(schema, name)
        for statement in (
            sql.SQL("explain update {} set {column} = {column} where false"),
            sql.SQL("explain delete from {} where false"),
        ):
            try:
                with conn.transaction():
                    conn.execute(statement.format(table, column=sql.Identifier(column)))
            except (errors.ObjectNotInPrerequisiteState, errors.InvalidColumnReference) as error:
                is_ok = False
                if isinstance(error, errors.InvalidColumnReference) and publication:
                    remedy = sql.SQL("alter publication {} drop table {}").format(
                        sql.Identifier(publication), table
                    )
                else:
                    identity = (
                        sql.SQL("default")
                        if has_key
                        else sql.SQL("using index {}").format(sql.Identifier(index))
                        if index
                        else sql.SQL("full")
                    )
                    remedy = sql.SQL("alter table {} replica identity {}").format(table, identity)
                detail = f"the sale stops at a publication: {error.diag.message_primary}"
                if error.diag.message_detail:
                    detail += f": {error.diag.message_detail}"
                yield Finding("publications", "failed", detail, remedy.as_string(conn))
                break
    if is_ok:
        many = f"{len(tables)} tables are published, and" if tables else "no table is published:"
        yield Finding("publications", "ok", f"{many} rows can be changed")


def sequences(conn: Connection) -> Findings:
    """Whether ids would be given out again, as after a copy, which leaves sequences behind."""
    behind = conn.execute("select * from flashsale_data.sequences_behind(true)").fetchall()
    for name, last_id, highest_id in behind:
        yield Finding(
            "sequences", "failed",
            f"{name} stands at {last_id}, behind {highest_id}: ids would be given out again",
            f"select setval('{name}', {highest_id})",
        )  # fmt: skip
    if not behind:
        yield Finding("sequences", "ok", "no id will be given out again")
