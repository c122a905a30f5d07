"""The tests of this folder share one server, whose database is emptied before each test."""

from tests.support.shared_server import shared_server

shared, postgresql, started, server = shared_server("flashsale_resources")
