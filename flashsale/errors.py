"""The one exception whose text is meant for the person at the keyboard."""


class Refusal(Exception):
    """Something the caller must put right first; the message says what, and how."""
