"""What the tests of the promises know of the campaign."""

from pathlib import Path

import pytest

from tests.proof.campaign import Campaign


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """How far this test goes, its seed and random numbers, and where it reports."""
    report = request.config.getoption("--proof-report")
    return Campaign(
        request.path.stem.removeprefix("test_"),
        request.node.nodeid,
        request.config.getoption("--proof-seed"),
        full=request.config.getoption("--proof-full"),
        report=None if report is None else Path(report),
    )
