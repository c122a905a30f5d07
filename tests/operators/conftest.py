"""The tests of this folder share one database, which is emptied before each test."""

from tests.support.database import emptied_database

shared, postgresql = emptied_database("flashsale_operators")
