"""The conventions of sql/ and of the tables: names, one object a file, a comment on each object."""

import re

import pytest

from flashsale.database.sql_loader import read_files
from tests.support import ROOT
from tests.support.sale_steps import one

SQL = ROOT / "sql"
FILES = sorted(path for path in SQL.rglob("*") if path != SQL / "README.md")
SCHEMA_OF = {
    "internal": "flashsale_data",
    "public": "flashsale",
    "operators": "flashsale",
    "views": "flashsale",
}
OURS = "in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)"
TABLES = (
    "select c.oid from pg_class c where c.relnamespace = 'flashsale_data'::regnamespace and c.relkind = 'r'"
)


def rows(db, query):
    return db.execute(query).fetchall()


def statements(path):
    """The statements of a file, without comments and function bodies, which contain semicolons."""
    text = re.sub(r"\$\$.*?\$\$", "$$", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"--.*", "", text)
    text = re.sub(r"'(?:[^']|'')*'", "''", text)
    return [" ".join(statement.split()) for statement in text.split(";") if statement.strip()]


def test_sql_contains_only_sql_files_in_its_four_folders():
    assert {path.name for path in FILES if path.parent == SQL} == set(SCHEMA_OF)
    strays = [
        path for path in FILES if path.is_file() and (path.suffix != ".sql" or path.parent.parent != SQL)
    ]
    assert strays == []


@pytest.mark.parametrize("path", [path for path in FILES if path.is_file()], ids=lambda path: path.stem)
def test_a_file_creates_one_object_of_its_name_and_grants_it(path):
    schema = SCHEMA_OF[path.parent.name]
    name = rf"{schema}\.{path.stem}\b"
    first, *others = statements(path)
    assert re.match(rf"create or replace (function|procedure|view) {name}", first)
    allowed = [rf"comment on (function|procedure|view) {name}"]
    if schema == "flashsale":
        allowed += [rf"revoke (execute|all) on (function |procedure )?{name}.* from public$"]
        allowed += [rf"grant (execute|select) on (function |procedure )?{name}.* to flashsale_(api|ops)$"]
    assert len(others) == len(allowed)
    for statement, pattern in zip(others, allowed, strict=True):
        assert re.match(pattern, statement), statement


@pytest.mark.parametrize("path", [path for path in FILES if path.is_file()], ids=lambda path: path.stem)
def test_a_file_follows_the_layout(path):
    text = path.read_text()
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert not re.search(r"[ \t]+$|\t", text, flags=re.MULTILINE), "trailing blanks or tabs"
    # The sweep records whatever has failed, and raises it again.
    assert path.stem == "sweep" or not re.search(r"when others", text, flags=re.IGNORECASE)
    # Without E, what a backslash means depends on standard_conforming_strings of the caller's session.
    assert not re.search(r"(?<![eE])'[^'\n]*\\", re.sub(r"--.*|[eE]'(?:[^']|'')*'", "", text))
    code = re.sub(r"--.*|'(?:[^']|'')*'|\$\$", "", text)
    assert not re.search(r"\b(SELECT|FROM|WHERE|BEGIN|END|RETURNS|CREATE|UPDATE|INSERT)\b", code), (
        "upper case"
    )


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.name in ("public", "operators", "internal")],
    ids=lambda p: p.stem,
)
def test_a_function_opens_with_its_contract(path):
    assert path.read_text().startswith("-- ")


def test_the_database_has_exactly_the_objects_of_the_files(db):
    made = {
        name
        for (name,) in rows(
            db,
            f"select pronamespace::regnamespace || '.' || proname from pg_proc where pronamespace {OURS}"
            f" union all select relnamespace::regnamespace || '.' || relname from pg_class"
            f" where relnamespace {OURS} and relkind in ('v', 'm')",
        )
    }
    assert made == {f"{file.schema}.{file.name}" for file in read_files(SQL)}


def test_no_function_is_overloaded(db):
    assert (
        rows(db, f"select proname from pg_proc where pronamespace {OURS} group by 1 having count(*) > 1")
        == []
    )


def test_every_function_view_schema_and_role_has_a_comment(db):
    silent = rows(
        db,
        f"""
        select oid::regprocedure::text from pg_proc
        where pronamespace {OURS} and obj_description(oid, 'pg_proc') is null
        union all
        select oid::regclass::text from pg_class
        where relnamespace {OURS} and relkind = 'v' and obj_description(oid, 'pg_class') is null
        union all
        select nspname::text from pg_namespace
        where oid {OURS} and obj_description(oid, 'pg_namespace') is null
        union all
        select rolname::text from pg_roles
        where rolname in ('flashsale_owner', 'flashsale_api', 'flashsale_ops')
          and shobj_description(oid, 'pg_authid') is null
        """,
    )
    assert silent == []


def test_a_comment_fits_on_a_line(db):
    long = rows(
        db,
        f"select d.description from pg_description d join pg_proc p on p.oid = d.objoid"
        f" where d.classoid = 'pg_proc'::regclass and p.pronamespace {OURS}"
        r" and (length(d.description) > 100 or d.description ~ '\n')",
    )
    assert long == []


def test_every_constraint_is_named_explicitly():
    """Generated names depend on the order of columns, so that migrations cannot rely on them."""
    for path in sorted((ROOT / "migrations").glob("*.sql")):
        text = re.sub(r"--.*", "", path.read_text())
        for table in re.findall(r"create table .*?;", text, flags=re.DOTALL):
            clauses = re.findall(r"(constraint \w+ )?\b(primary key|unique|check|exclude)\b", table)
            assert [kind for name, kind in clauses if not name] == [], table
            references = re.findall(r"(foreign key \(\w+\) )?\breferences\b", table)
            assert all(references), table
            foreign = re.findall(r"(constraint \w+ )?\bforeign key\b", table)
            assert all(foreign), table
        assert not re.search(r"add (primary key|unique|check|foreign key)", text), path


def test_constraints_and_indexes_begin_with_their_tables_name(db):
    odd = rows(
        db,
        f"""
        with named (name, owner) as (
          select conname, conrelid from pg_constraint
          union all
          select c.relname, i.indrelid from pg_index i join pg_class c on c.oid = i.indexrelid
        )
        select name, t.relname from named join pg_class t on t.oid = owner
        where owner in ({TABLES}) and not starts_with(name, t.relname || '_')
        """,
    )
    assert odd == []


def test_names_of_timestamp_columns_end_in_at(db):
    """Exceptions: `events.at`, and `stock.lapsed_through`."""
    odd = rows(
        db,
        f"select attrelid::regclass || '.' || attname from pg_attribute where attrelid in ({TABLES})"
        f" and atttypid in ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)"
        f" and attname !~ '_at$'"
        f" order by 1",
    )
    assert odd == [("flashsale_data.events.at",), ("flashsale_data.stock.lapsed_through",)]


def test_timestamps_have_a_time_zone(db):
    naive = f"select 1 from pg_attribute where attrelid in ({TABLES}) and atttypid = 'timestamp'::regtype"
    assert rows(db, naive) == []


def test_foreign_keys_have_the_name_and_type_of_the_referenced_column(db):
    odd = rows(
        db,
        "select c.conname from pg_constraint c"
        " join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]"
        " join pg_attribute b on b.attrelid = c.confrelid and b.attnum = c.confkey[1]"
        " where c.contype = 'f' and c.connamespace = 'flashsale_data'::regnamespace"
        " and (a.attname <> b.attname or a.attname !~ '_id$' or a.atttypid <> b.atttypid)",
    )
    assert odd == []


def test_arguments_begin_with_p(db):
    odd = rows(
        db,
        f"""
        select p.oid::regprocedure::text, a.name
        from pg_proc p,
          unnest(p.proargnames, coalesce(p.proargmodes, array_fill('i'::"char", array[p.pronargs])))
            as a (name, mode)
        where p.pronamespace {OURS} and a.mode in ('i', 'v') and a.name !~ '^p_'
        """,
    )
    assert odd == []


def test_states_are_text_with_a_check_not_enums(db):
    assert one(db, f"select count(*) from pg_type where typnamespace {OURS} and typtype in ('e', 'd')") == 0


def test_no_table_has_triggers_or_rules(db):
    """All behaviour is in the functions."""
    assert one(db, f"select count(*) from pg_trigger where tgrelid in ({TABLES}) and not tgisinternal") == 0
    assert one(db, f"select count(*) from pg_rewrite where ev_class in ({TABLES})") == 0
