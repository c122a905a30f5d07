"""The exception that the command line prints as its error message."""


class UserError(Exception):
    """A condition that the user can correct; the message names it and the correction."""
