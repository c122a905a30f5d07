"""The outcomes of a call that returned no row. All but OutcomeUnknown mean that nothing happened."""


class Unavailable(Exception):
    """Nothing was done: no connection, an error of the server or its schema, or a read without a response."""

    reason = "unavailable"


class RolledBack(Exception):
    """The server rolled the whole call back. Nothing happened.

    :param sqlstate: the server's SQLSTATE
    """

    def __init__(self, sqlstate: str, message: str = "") -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = self.reason = sqlstate


class OutcomeUnknown(Exception):
    """The call was sent and no response came: it may or may not have been committed."""

    reason = "outcome_unknown"


class Overloaded(Exception):
    """The queue is full, or the request reached its queue timeout. Nothing happened."""


class Busy(Exception):
    """A row that the request needs stayed locked for as long as the request could wait. Nothing happened."""
