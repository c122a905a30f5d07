"""Operations of the tag Health."""

from collections.abc import Mapping

from api import problems
from api.openapi.operation import Operation, ProblemExample, SuccessResponse
from api.schemas import responses

# fmt: off
OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/healthz"): Operation(
        "alive", "Health", "Is the process alive?", "The database is not checked.",
        responses=(SuccessResponse(200, "Yes.", responses.Alive, {"alive": responses.Alive("alive")}),),
    ),
    ("GET", "/readyz"): Operation(
        "ready", "Health", "Can requests be served?",
        "Whether the database responds, has this server's schema, and can serve the sale: it is the primary, "
        "writable, and gives out no id twice. The scheduler's state is reported, but "
        "responses are exact without it.",
        responses=(SuccessResponse(
            200, "Yes.", responses.Ready,
            {"not scheduled": responses.Ready(
                "ready", "reachable", "current", "0016.shards", "3f0c2a", "not_scheduled",
                "No job sweeps this database; run flashsale migrate.",
            )},
        ),),
        problems=(ProblemExample(
            problems.NOT_READY, "The schema in the database is not the one on disk: run `flashsale migrate`.",
            {
                "database": "reachable",
                "schema": "outdated",
                "schema_version": "0016.shards",
                "schema_digest": "3f0c2a",
                "scheduler": "not_scheduled",
                "scheduler_detail": "No job sweeps this database; run flashsale migrate.",
            },
        ),),
    ),
}
# fmt: on
