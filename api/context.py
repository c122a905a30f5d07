"""The context of a request: a context variable for its task, and names of what its ASGI scope carries."""

from contextvars import ContextVar
from typing import Any

REQUEST: ContextVar[Any] = ContextVar("request", default=None)
"""Falcon's `context` of the request that a task responds to: notes there show in the log and in traces"""

# Keys of `scope["state"]`.
REQUEST_STARTED = "request_started"
"""when the request's head was complete, by perf_counter()"""
BODY_TRUNCATED = "body_truncated"
"""set if the client disconnected before the body was complete: the request must have no effect"""
CROSS_ORIGIN = "cross_origin"
"""the CORS policy (api/cross_origin.py), if front ends of other origins are allowed; also for responses that
do not come from the application"""
ON_DISCONNECT = "on_disconnect"
"""a callback of the application for a response without an end: called when the client has disconnected, or
when the server shuts down"""
