"""The promises, and the campaign against each: proof/test_<name>.py."""

import enum
from typing import NamedTuple


class Load(enum.Enum):
    """What a campaign needs of the machine, and so what may run beside it."""

    COMPUTES = "keeps a core busy: one a core"
    WAITS = "waits for clocks, disks and sockets, or has a fixed duration: one beside those that compute"
    TIMED = "measures latencies: nothing beside it"


class Promise(NamedTuple):
    name: str
    sentence: str
    load: Load = Load.COMPUTES


PROMISES = {
    promise.name: promise
    for promise in (
        Promise("sales", "A unit is never sold twice, nor refused while available"),
        Promise("model", "Each response is what the contract says"),
        Promise("interleavings", "Concurrent calls have the effect of a serial order"),
        Promise("transactions", "Callers' transactions, faults and reloads break no rule", Load.WAITS),
        Promise("webhook_orders", "Webhooks have one effect in any order; money adds up"),
        Promise("time", "Holds and orders end exactly at their instant", Load.WAITS),
        Promise("crash", "A write that was answered is on disk", Load.WAITS),
        Promise("failover", "A failover loses no acknowledged write", Load.TIMED),
        Promise("connection_loss", "An unknown outcome is answered outcome_unknown", Load.WAITS),
        Promise("stuck_neighbour", "A locked row is answered in 2 s, delays no other", Load.TIMED),
        Promise("soak", "A long sale neither slows down nor grows", Load.TIMED),
        Promise("bad_arguments", "Bad SQL arguments are refused without a trace"),
        Promise("bad_requests", "Input never causes a 500"),
        Promise("forgery", "Only a signed webhook changes an order"),
        Promise("webhook_flood", "The inbox is bounded; checkout stays fast", Load.TIMED),
        Promise("unprivileged_role", "flashsale_api can only call the public functions"),
        Promise("hostile_session", "A caller's objects and settings change no result"),
        Promise("upgrade", "An upgrade under traffic equals a fresh install"),
        Promise("mutations", "Without its guard, a named test fails"),
    )
}
