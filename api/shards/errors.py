"""The outcome of a call that came to a shard which does not own its slot."""

from api.database.errors import RolledBack, Unavailable

SQLSTATE = "SA029"


class WrongShard(Unavailable):
    """Another shard owns the slot of one of the call's ids, or none does. Nothing happened."""

    reason = "wrong_shard"


def translated(error: RolledBack) -> RolledBack | WrongShard:
    """WrongShard, which a batcher does not retry in parts, if that is what happened."""
    return WrongShard(str(error)) if error.sqlstate == SQLSTATE else error
