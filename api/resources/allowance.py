"""GET /api/products/{id}/allowance."""

from falcon.asgi import Request, Response

from api.buyer_identity import BuyerIdentity
from api.database.client import CheckoutClient
from api.problems import PRODUCT_NOT_FOUND, respond_refusal
from api.schemas import responses
from api.schemas.parameters import buyer_parameter, parse_id
from api.schemas.responses import encode


class Allowance:
    """How many units of a product its buyer may still take."""

    def __init__(self, client: CheckoutClient, buyers: BuyerIdentity) -> None:
        self._get_allowances = client.get_allowances
        self._buyers = buyers

    async def on_get(self, req: Request, resp: Response, product_id: str) -> None:
        id_ = parse_id(product_id, PRODUCT_NOT_FOUND)
        row = await self._get_allowances.submit(id_, self._buyers.buyer_of(req, buyer_parameter(req)))
        if row.sqlstate:
            return respond_refusal(resp, row)
        resp.data = encode(responses.Allowance(row.max_per_buyer, row.taken, row.remaining))
