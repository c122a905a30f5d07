"""Open files: each connection of a client or to the database is one.

The soft limit of a login or a service is commonly 1,024, less than the connections that this server promises
to serve. It is raised to the hard limit.
"""

import resource


def raise_soft_limit() -> int:
    """Raise this process's soft limit to its hard limit; returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # guard: open-files-limit
    return hard
