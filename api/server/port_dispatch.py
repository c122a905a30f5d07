"""Two applications behind one gunicorn, by port: every worker listens on both.

Metrics have a port of their own because a proxy publishes the shop's: what is not on that port cannot be
published by mistake.
"""

from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[[Any, Any, Any], Awaitable[None]]


def dispatch_by_port(default: Application, by_port: dict[int, Application]) -> Application:
    """One application that passes each request to that of its port, and all else to `default`."""

    def application(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "http":
            return by_port.get(scope["server"][1], default)(scope, receive, send)
        return default(scope, receive, send)

    return application
