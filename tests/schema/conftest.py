"""Here every test shares one database, emptied before each."""

from tests.support.database import emptied_database

shared, postgresql = emptied_database("flashsale_schema")
