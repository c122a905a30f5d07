"""The checks and their command. All tests share one database, which is emptied before each."""

from tests.support.cli import flashsale, scheduled, unset_settings
from tests.support.database import emptied_database

__all__ = ["flashsale", "scheduled", "unset_settings"]

shared, postgresql = emptied_database("flashsale_doctor")
