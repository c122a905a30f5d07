"""Whether each slot of the shop has one owner (docs/shards.md)."""

from collections.abc import Mapping

from api.shards.slots import slot_ranges
from flashsale.database.connection import Connection, fetch_row
from flashsale.doctor.finding import Finding, Findings


def of_one_database(conn: Connection) -> Findings:
    """Whether the only database that is configured owns all slots."""
    slots, owned = fetch_row(conn, "select slots, owned from flashsale.get_shard()")
    if missing := set(range(slots)) - set(owned):
        yield Finding(
            "slots", "failed",
            f"this database does not own slots {slot_ranges(missing)} of {slots}: it refuses their requests",
            "name all databases of the shop in FLASHSALE_DATABASE_URLS, here and for the server",
        )  # fmt: skip


def of_several(shards: Mapping[str, tuple[int, list[int]]]) -> Findings:
    """Whether several databases divide one shop among them.

    :param shards: by name, the number of slots and those that are owned
    """
    counts = {slots for slots, _ in shards.values()}
    if len(counts) > 1:
        said = ", ".join(f"{name} {slots}" for name, (slots, _) in shards.items())
        yield Finding(
            "slots", "failed", f"the numbers of slots differ: {said}",
            "take the databases of another shop out of FLASHSALE_DATABASE_URLS",
        )  # fmt: skip
        return
    owners: dict[int, list[str]] = {slot: [] for slot in range(max(counts, default=0))}
    for name, (_, owned) in shards.items():
        for slot in owned:
            owners[slot].append(name)
    is_sound = True
    if none := [slot for slot, names in owners.items() if not names]:
        is_sound = False
        yield Finding(
            "slots", "failed", f"no shard owns slots {slot_ranges(none)}: their products are not sold",
            "finish the move that was interrupted: flashsale shard list shows it; or name the missing"
            " database in FLASHSALE_DATABASE_URLS",
        )  # fmt: skip
    contested: dict[str, list[int]] = {}
    for slot, names in owners.items():
        if len(names) > 1:
            contested.setdefault(" and ".join(names), []).append(slot)
    for names_, found in contested.items():
        is_sound = False
        yield Finding(
            "slots", "failed", f"slots {slot_ranges(found)} are owned by {names_}: they are not served",
            "one is a copy: take it out of FLASHSALE_DATABASE_URLS, or restore it from its own backup",
        )  # fmt: skip
    if is_sound:
        said = ", ".join(f"{name} {slot_ranges(owned) or 'none'}" for name, (_, owned) in shards.items())
        yield Finding("slots", "ok", f"each has one owner: {said}")
