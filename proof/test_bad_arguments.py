"""Bad arguments: the SQL functions refuse them by documented SQLSTATEs, and a refused call has no effect."""

from collections.abc import Callable

import psycopg
from psycopg.pq import DiagnosticField as Field
from psycopg.pq import ExecStatus

from proof.campaign import Campaign
from proof.hostile_calls import HostileCalls
from tests.support.database import session_of_new_role
from tests.support.hostile_arguments import FUNCTIONS, Function, check_error, check_row, of_catalog
from tests.support.sale_steps import audit, one, order, pay, place_hold

CALLS_AN_AUDIT = 500
CALLS_A_REFRESH = 20
LAST_EVENT = "select coalesce(max(event_id), 0) from flashsale_data.events"


class Caller:
    """A session that sends arguments as bytes, as no driver would, and checks each outcome."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.refused = 0
        self.sqlstates: set[str] = set()

    def call(self, function: Function, arguments: list[bytes | None]) -> bool:
        """Call it and check the outcome. Returns whether the call may have had an effect."""
        statement = function.statement(f"${number}" for number in range(1, len(arguments) + 1))
        result = self._conn.pgconn.exec_params(statement.encode(), arguments)
        call = (function.name, [argument and argument[:200] for argument in arguments])
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            fields = (Field.SQLSTATE, Field.MESSAGE_PRIMARY, Field.MESSAGE_DETAIL, Field.CONTEXT)
            sqlstate, *texts = ((result.error_field(f) or b"").decode(errors="replace") for f in fields)
            check_error(sqlstate, *texts, call)
            self.refused += 1
            self.sqlstates.add(sqlstate)
            return False
        columns = [result.fname(number) for number in range(result.nfields)]
        if b"sqlstate" not in columns:
            return True
        sqlstate, detail = columns.index(b"sqlstate"), columns.index(b"detail")
        rows = [
            (result.get_value(row, sqlstate), result.get_value(row, detail)) for row in range(result.ntuples)
        ]
        for code, reason in rows:
            check_row(code and code.decode(), reason and reason.decode())
        if function.names[0] == "p_request_nos":
            requests = self._conn.pgconn.exec_params(
                b"select coalesce(cardinality($1::int[]), 0)", arguments[:1]
            )
            assert len(rows) == int(requests.get_value(0, 0)), (call, "a row for each request")
        self.refused += any(code is not None for code, _ in rows)
        self.sqlstates.update(code.decode() for code, _ in rows if code)
        return any(code is None for code, _ in rows)


def test_hostile_arguments_are_refused_without_a_trace(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection], campaign: Campaign
) -> None:
    count = campaign.size(1_000, 100_000)
    functions = [of_catalog(db, name) for name in FUNCTIONS]
    functions = [function for function in functions if function.types]
    one(db, "select flashsale.create_product('Shoe', 2147483647, 99)")
    with session_of_new_role(db, connect, "flashsale_proof_operator", "flashsale_ops") as conn:
        caller = Caller(conn)
        stand_ins: dict[str, str] = {}
        calls = HostileCalls(campaign.random, stand_ins)
        last = None
        for number in range(count):
            if number % CALLS_AN_AUDIT == 0:
                assert audit(db) == [], f"after {number} calls"
            if number % CALLS_A_REFRESH == 0:
                # Earlier calls may have changed the settings and used the holds up.
                db.execute("select flashsale.change_settings('2 minutes', '15 minutes', 1000000, '24 hours')")
                # A new product: calls may have given the one before terms that refuse a hold.
                product = one(db, "select flashsale.create_product('Shoe', 1000000, 99)")
                ordered = order(db, product)
                stand_ins |= {
                    "@held": str(place_hold(db, product)),
                    "@used": str(place_hold(db, product, 1, f"key {number}")),
                    "@order": str(ordered),
                }
                pay(db, ordered + 1000, key=f"early {number}")
                last = one(db, LAST_EVENT)
            function = campaign.random.choice(functions)
            arguments = calls.arguments(function)
            may_have_changed = caller.call(function, arguments)
            now = one(db, LAST_EVENT)
            assert may_have_changed or now == last, (function.name, arguments)
            last = now
        assert audit(db) == []
    campaign.record(
        f"{count:,} hostile calls of {len(functions)} SQL functions, {caller.refused:,} of them refused",
        f"refused only by {', '.join(sorted(caller.sqlstates))}; no refused call had an effect",
        hostile_calls=count,
        refused=caller.refused,
    )
