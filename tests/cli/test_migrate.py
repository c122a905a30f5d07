"""`flashsale migrate` as a command; tests/database/test_migrations.py tests what it does.

`up` and `destroy` are tested in tests/local/test_supervisor.py.
"""

import psycopg


def test_migrate_brings_an_empty_database_up_to_date(flashsale, empty_database):
    result = flashsale("migrate", "--no-schedule", FLASHSALE_DATABASE_URL=empty_database)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "loaded sql/"
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("select count(*) from flashsale.refusals").fetchone()[0] > 10


def test_migrate_without_a_database_is_a_one_line_error(flashsale):
    result = flashsale("migrate", FLASHSALE_DATABASE_URL="postgresql://127.0.0.1:1/none?connect_timeout=2")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot connect to the database: ")
