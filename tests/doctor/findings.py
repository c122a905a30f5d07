"""What tests ask of a check of `flashsale doctor`."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from flashsale.doctor.finding import Finding

SECRET = "whsec_" + "c2VjcmV0" * 6


@contextmanager
def after(db: psycopg.Connection, *statements: str) -> Iterator[psycopg.Connection]:
    """The database after `statements`, which are rolled back at the end."""
    with db.transaction(force_rollback=True):
        for statement in statements:
            db.execute(statement)
        yield db


def problems(check, *arguments) -> list[tuple[str, str]]:
    """The findings of a check that are not ok; each has a remedy."""
    findings = list(check(*arguments))
    assert findings, "a check always has a finding"
    assert {finding.status == "ok" for finding in findings} == {not any(f.remedy for f in findings)}
    return [(finding.status, finding.detail) for finding in findings if finding.status != "ok"]


def only(check, *arguments) -> Finding:
    (finding,) = check(*arguments)
    return finding
