"""The prepared statement of a session."""

import asyncio

import psycopg

from api.database.prepared_statement import PreparedCall


def test_a_statement_is_named_after_its_function(database_url: str) -> None:
    """Another name would be that of another function behind a pooler that mixes sessions up."""

    async def names() -> list[tuple[str]]:
        connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        prepared = PreparedCall(connection, "get_holds", tuple)
        await prepared.prepare("select name from pg_prepared_statements")
        try:
            return await prepared.call([])
        finally:
            await prepared.close()

    assert asyncio.run(names()) == [("get_holds",)]
