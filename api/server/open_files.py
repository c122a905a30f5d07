"""Open files: each connection of a client or to the database is one.

The soft limit of a login or a service is commonly 1,024, less than the connections that this server promises
to serve. It is raised to the hard limit. Clients may use all of it but a reserve: without one, a server that
is full of idle clients could not replace a broken connection to the database.
"""

import resource

RESERVED_FILES = 100
"""for connections to the database (api/database/client.py), listeners, logs and files read at work"""


def raise_soft_limit() -> int:
    """Raise this process's soft limit to its hard limit; returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # guard: open-files-limit
    return hard


def max_client_connections() -> int:
    """How many clients may be connected to this process at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - RESERVED_FILES)
