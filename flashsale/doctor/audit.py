"""The invariants of the data."""

from flashsale.database.connection import Connection
from flashsale.doctor.finding import Finding, Findings


def audit(conn: Connection) -> Findings:
    rows = conn.execute("select check_name, detail from flashsale.audit()").fetchall()
    for name, detail in rows:
        remedy = "stop selling this product and find out who wrote to flashsale_data by hand"
        yield Finding("audit", "failed", f"{name}: {detail}", remedy)
    if not rows:
        yield Finding("audit", "ok", "every invariant holds")
