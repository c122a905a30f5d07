"""What /openapi.json says of the HTTP interface as a whole."""

from api.schemas import requests, webhook_body

ABOUT = f"""\
A checkout for a flash sale: reserve units (a **hold**), turn the hold into an **order**, and have the payment
provider report (a **webhook**). Nothing is oversold, and stock is exact at the instant of each response.

**Errors** are problem details ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Branch on `code`;
`detail` is for people and may change. No input causes a 500.

**Safe retries.** `Idempotency-Key` identifies the intent, not the attempt: a retry with the same key, after a
lost response or a 503, has no second effect. The response to a retry has the first status, the resource in
its current state, and `Idempotency-Replayed: true`. The same key with another body is refused without effect.
A refused request leaves its key unused. A 503 has `Retry-After`; only after `outcome_unknown` may the request
have taken effect.

**Buyers.** A product may have a limit for each buyer. The buyer is the `sub` of a token that the shop signs
for its customer (`Authorization: Bearer`); a token that is not valid is refused, whatever the product.

**Values.** Times are RFC 3339 in UTC and end in `Z`. Money is a decimal string with an ISO 4217 currency.
A body is strict JSON in UTF-8 of at most {requests.MAX_BODY_BYTES // 1024} KiB (a webhook:
{webhook_body.MAX_WEBHOOK_BYTES // 1024} KiB), without duplicate members;
`1.0` and `true` are not integers. Unknown members are refused, except in a webhook. Responses may gain
members.

**All paths.** `HEAD` is supported wherever `GET` is, and `OPTIONS` everywhere. Other methods are refused with
`method_not_allowed` (405) and `Allow`; unknown paths with `not_found` (404).

**Other origins.** Pages of the origins in the server's `FLASHSALE_CORS_ORIGINS` may call all but the webhook
from a browser (CORS), without credentials.
"""

TAGS = {
    "Products": "Products and their stock, exact at the instant of the response.",
    "Holds": "Units reserved for one buyer, by default for 2 minutes.",
    "Orders": "Ordered holds. An order awaits payment, by default for 15 minutes.",
    "Payments": "Events of the payment provider.",
    "Health": "For process supervisors and load balancers.",
}
