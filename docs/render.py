"""Writes into docs/reference.md what the code says already: `.venv/bin/python -m docs.render`.

A part between `<!-- rendered: name -->` and `<!-- end -->` is made from the catalog of a freshly migrated
database, from the opening comments in sql/, and from the tables that /openapi.json is made of. A test fails
when the file is not current.
"""

import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg

from api import problems
from api.database.schema_version import SQL_DIRECTORY
from api.openapi.operation import ProblemExample
from api.openapi.operations import OPERATIONS, shared
from api.problems import ProblemType
from flashsale.cli.main import main
from flashsale.database.migrations import migrate
from flashsale.database.sql_loader import read_files
from flashsale.local.cluster import SUPERUSER, Cluster, stop_server

REFERENCE = Path(__file__).with_name("reference.md")
WIDTH = 96

_PART = re.compile(r"(<!-- rendered: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CODE = re.compile(r"(?<![\w`.])(?:[\w.]*_[\w.]*\w(?:\(\))?|[\w.]+\(\)|SA\d{3}|55P03)(?![\w`])")
_SHORT = {"integer": "int", "timestamp with time zone": "timestamptz", "DEFAULT": "default", "NULL": "null"}
_ROUTINES = """
    select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.prokind = 'p',
           p.proretset, coalesce(p.proargnames, '{}'),
           array(select format_type(t, null) from unnest(p.proallargtypes) with ordinality as a (t, i)
                  order by i),
           p.proargmodes::text[]
      from pg_proc p
     where p.pronamespace = 'flashsale'::regnamespace and has_function_privilege(%s, p.oid, 'execute')
     order by 1
"""
_VIEWS = """
    select c.relname, obj_description(c.oid, 'pg_class'),
           has_table_privilege('flashsale_api', c.oid, 'select'),
           array(select a.attname || ' ' || format_type(a.atttypid, null) from pg_attribute a
                  where a.attrelid = c.oid and a.attnum > 0 order by a.attnum)
      from pg_class c
     where c.relnamespace = 'flashsale'::regnamespace and c.relkind = 'v'
     order by 1
"""


def render(text: str, conn: psycopg.Connection[Any]) -> str:
    """`text` with its rendered parts as the code and the database of `conn` have them now."""
    parts: dict[str, Callable[[], Iterable[str]]] = {
        "calls": _calls,
        "functions for callers": lambda: _functions(conn, "flashsale_api", ""),
        "functions for operators": lambda: _functions(conn, "flashsale_ops", "flashsale_api"),
        "views": lambda: _views(conn),
        "refusals": _refusals,
        "problems of HTTP": _problems_of_http,
        "commands": _commands,
    }
    return _PART.sub(lambda found: found[1] + "\n".join(parts[found[2]]()) + "\n" + found[3], text)


def _code(text: str) -> str:
    """Identifiers set as code."""
    return _CODE.sub(r"`\g<0>`", text)


def _short(declaration: str) -> str:
    for long, short in _SHORT.items():
        declaration = re.sub(rf"\b{long}\b", short, declaration)
    return re.sub(r"::\w+(\[\])?", "", declaration)  # the type of a default, which its argument has anyway


def _functions(conn: psycopg.Connection[Any], role: str, but: str) -> Iterator[str]:
    contracts = {file.name: file.text for file in read_files(SQL_DIRECTORY) if file.schema == "flashsale"}
    left_out = {row[0] for row in conn.execute(_ROUTINES, (but,))} if but else set()
    for name, arguments, result, is_procedure, many, names, types, modes in conn.execute(_ROUTINES, (role,)):
        if name in left_out:
            continue
        columns = [
            f"{column} {_short(type_)}"
            for column, type_, mode in zip(names, types, modes or (), strict=False)
            if mode in "ot"
        ]
        taken = re.sub(r"(?:^|, )OUT .*", "", arguments)
        if is_procedure:
            gives = ""
        elif columns:
            gives = f"\n→ {'rows of ' if many else ''}{', '.join(columns)}"
        else:
            gives = f"\n→ {_short(result)}"
        yield f"### {name}\n\n```none"
        for line in f"{'call ' if is_procedure else ''}{name}({_short(taken)}){gives}".splitlines():
            # Broken only between one argument or column and the next.
            whole = re.sub(r"(?<!,) ", "\0", line)
            yield textwrap.fill(whole, WIDTH, subsequent_indent="    ").replace("\0", " ")
        yield "```\n"
        yield from _contract(contracts[name])


def _contract(text: str) -> Iterator[str]:
    """The comment that a file of sql/ opens with, as Markdown."""
    comment = "".join(
        line[3:] + "\n" if line.startswith("-- ") else "\n"
        for line in text[: re.search(r"^(?!--)", text, re.MULTILINE).start()].splitlines()
    )
    for paragraph in comment.strip().split("\n\n"):
        if all(line.startswith("  ") for line in paragraph.splitlines()):
            yield f"```none\n{textwrap.dedent(paragraph)}\n```\n"
            continue
        # "Locks    …", "Replays  …", "Refuses  …", each with indented lines after it
        entries = re.split(r"^(?=(?:Locks|Replays|Refuses) )", paragraph, flags=re.MULTILINE)
        for entry in filter(None, entries):
            if label := re.match(r"(Locks|Replays|Refuses) {2,}", entry):
                said = " ".join(entry[label.end() :].split())
                yield textwrap.fill(
                    f"- {label[1]}: {_code(said)}", WIDTH, subsequent_indent="  ", break_on_hyphens=False
                )
            else:
                yield textwrap.fill(_code(" ".join(entry.split())), WIDTH, break_on_hyphens=False)
        yield ""


def _views(conn: psycopg.Connection[Any]) -> Iterator[str]:
    yield "| view | what is in it | columns |\n|---|---|---|"
    for name, comment, for_callers, columns in conn.execute(_VIEWS):
        also = " (`flashsale_api`, too)" if for_callers else ""
        listed = ", ".join(f"`{_short(column)}`" for column in columns)
        yield f"| `{name}` | {_code(comment)}{also} | {listed} |"


def _calls() -> Iterator[str]:
    general = (*shared.COMMON_PROBLEMS, *shared.BODY_PROBLEMS)
    database = (*shared.READ_PROBLEMS, *shared.WRITE_PROBLEMS)
    common = {type_.code for type_ in _types((*general, *database))}
    yield "| call | | success | refusals of its own |\n|---|---|---|---|"
    for (method, path), operation in OPERATIONS.items():
        own = [f"`{type_.code}`" for type_ in _types(operation.problems) if type_.code not in common]
        success = ", ".join(str(response.status) for response in operation.responses)
        yield f"| `{method} {path}` | {operation.summary} | {success} | {', '.join(own)} |"


def _types(found: Iterable[ProblemType | ProblemExample]) -> list[ProblemType]:
    return [problem.type if isinstance(problem, ProblemExample) else problem for problem in found]


def _refusals() -> Iterator[str]:
    comments = {
        file.name: file.text[: file.text.index("create or replace")]
        for file in read_files(SQL_DIRECTORY)
        if file.schema == "flashsale" and file.kind == "routine"
    }
    yield "| SQLSTATE | code | HTTP | what it means | `Retry-After` | refused by |\n|---|---|---|---|---|---|"
    for sqlstate, type_ in problems.REFUSALS.items():
        by = ", ".join(f"`{name}`" for name, comment in sorted(comments.items()) if sqlstate in comment)
        yield f"| {sqlstate} | `{type_.code}` | {type_.status} | {type_.detail} | {type_.retry_text} | {by} |"


def _problems_of_http() -> Iterator[str]:
    of_sql = {type_.code for type_ in problems.REFUSALS.values()}
    types = [value for value in vars(problems).values() if isinstance(value, ProblemType)]
    yield "| code | HTTP | what it means | `Retry-After` |\n|---|---|---|---|"
    for type_ in sorted(types, key=lambda type_: (type_.status, type_.code)):
        if type_.code not in of_sql:
            yield f"| `{type_.code}` | {type_.status} | {type_.detail} | {type_.retry_text} |"


def _commands() -> Iterator[str]:
    yield "| command | |\n|---|---|"
    for name, command in main.commands.items():
        group = command.commands if isinstance(command, click.Group) else {"": command}
        for sub, each in group.items():
            yield f"| `{f'flashsale {name} {sub}'.strip()}` | {each.get_short_help_str(limit=200)} |"


@contextmanager
def _fresh_database() -> Iterator[psycopg.Connection[Any]]:
    folder = Path(tempfile.mkdtemp(prefix="flashsale-docs-"))
    folder.chmod(0o711)
    cluster = Cluster(folder)
    cluster.create()
    server = cluster.start({"fsync": "off"}, with_pg_cron=False)
    try:
        url = cluster.url(SUPERUSER, "postgres")
        migrate(url, schedule=False, say=lambda _: None)
        with psycopg.connect(url) as conn:
            yield conn
    finally:
        stop_server(server)
        shutil.rmtree(folder)


if __name__ == "__main__":
    with _fresh_database() as conn:
        REFERENCE.write_text(render(REFERENCE.read_text(), conn))
