"""What is missing in a list of products while a shard does not respond.

    Missing-Products: slots=16, missing=(8 9 10)

The list has no product whose id, modulo 16, is 8, 9 or 10 (a dictionary of RFC 9651).
"""

from typing import Any

from falcon.asgi import Request, Response

HEADER = "Missing-Products"
EXPOSED = "Access-Control-Expose-Headers"


class MissingProducts:
    """Middleware that adds the header to such a response, after all other middleware."""

    async def process_response(self, req: Request, resp: Response, resource: Any, succeeded: bool) -> None:
        found: tuple[int, list[int]] | None = getattr(req.context, "missing_slots", None)
        if found is not None:
            slots, missing = found
            resp.set_header(HEADER, f"slots={slots}, missing=({' '.join(map(str, missing))})")
            if exposed := resp.get_header(EXPOSED):  # to pages of another origin
                resp.set_header(EXPOSED, f"{exposed}, {HEADER}")
