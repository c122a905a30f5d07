"""Operations of the tag Products."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from api import problems
from api.openapi.operation import Operation, Parameter, ProblemExample, SuccessResponse
from api.openapi.operations.shared import BUYER, INVALID_TOKEN, NO_PRODUCT, READ_PROBLEMS
from api.schemas import fields, parameters, responses
from api.schemas.fields import ProductId

PRODUCT_ID = Parameter("product_id", "path", ProductId, 1, required=True)
NOW = "2025-01-12T10:44:02.187Z"
SHOE = responses.Product(1, "Limited sneaker", "99.00", "USD", 50, 38, "open", None, None, None, NOW)
DROP = responses.Product(
    2, "Drop", "149.00", "EUR", 500, 500, "scheduled", "2025-01-12T11:00:00Z", "2025-01-12T23:00:00Z", 2, NOW
)

# fmt: off
OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/api/products"): Operation(
        "list_products", "Products", "List the products",
        "By ascending id, in pages: follow `Link` until a response has none. Test products are not listed.",
        responses=(SuccessResponse(
            200, "A page of products.", list[responses.Product], {"one product": [SHOE]}, headers=("Link",),
        ),),
        problems=(
            ProblemExample(problems.INVALID_REQUEST, "Parameter limit must be an integer from 1 to 1000."),
            *READ_PROBLEMS,
        ),
        parameters=(
            Parameter(
                "after", "query",
                Annotated[
                    int,
                    Meta(
                        ge=0, le=fields.MAX_BIGINT,
                        description="The last id of the previous page; 0 for the first page.",
                        extra_json_schema={"default": 0},
                    ),
                ],
                0,
            ),
            Parameter(
                "limit", "query",
                Annotated[
                    int,
                    Meta(
                        ge=1, le=parameters.MAX_PAGE_SIZE, description="Products on a page.",
                        extra_json_schema={"default": parameters.DEFAULT_PAGE_SIZE},
                    ),
                ],
                1,
            ),
        ),
    ),
    ("GET", "/api/products/{product_id}"): Operation(
        "get_product", "Products", "Get a product", "Its available stock is never older than the request.",
        responses=(SuccessResponse(
            200, "The product.", responses.Product, {"on sale": SHOE, "scheduled": DROP},
        ),),
        problems=(NO_PRODUCT, *READ_PROBLEMS), parameters=(PRODUCT_ID,),
    ),
    ("GET", "/api/products/{product_id}/allowance"): Operation(
        "get_allowance", "Products", "Get a buyer's allowance",
        "How many units the buyer may still take, at the instant of the response. What a hold takes comes "
        "back when it lapses; what is paid counts for ever.",
        responses=(SuccessResponse(
            200, "The allowance.", responses.Allowance,
            {
                "limited": responses.Allowance(2, 1, 1),
                "without a limit": responses.Allowance(None, None, None),
            },
        ),),
        problems=(
            NO_PRODUCT,
            ProblemExample(
                problems.INVALID_REQUEST,
                "An allowance is of a product and a buyer, a text of 1 to 255 characters.",
            ),
            INVALID_TOKEN, *READ_PROBLEMS,
        ),
        parameters=(PRODUCT_ID, BUYER), has_buyer=True,
    ),
    ("GET", "/api/products/{product_id}/live"): Operation(
        "watch_product", "Products", "Watch a product's stock",
        "An endless stream of Server-Sent Events; `curl -N` shows it. First `history`, an array of "
        "samples: the changes of the last two minutes, or since `Last-Event-ID`. Then `stock`, a sample with "
        "the terms of the sale, whenever either differs from before. `unavailable`, with `code` and `title`, "
        "means that the database does not respond; a sample follows when it does again. A comment is sent "
        "every 5 seconds without an event.",
        responses=(SuccessResponse(
            200,
            "The stream. The `data` of its events is JSON made of samples, such as "
            '`{"at":"2025-01-12T10:44:02.187Z","available":38,"held":8,"awaiting":3,"paid":1}`; '
            "event `stock` has `sale_status`, `starts_at`, `ends_at` and `max_per_buyer` in addition.",
            str, {"first event": "event: history\nretry: 2000\ndata: []\n\n"}, media_type="text/event-stream",
        ),),
        problems=(NO_PRODUCT, *READ_PROBLEMS),
        parameters=(
            PRODUCT_ID,
            Parameter(
                "Last-Event-ID", "header",
                Annotated[str, Meta(description="The id of the last event received, to resume after it.")],
                "1736678642187",
            ),
        ),
    ),
}
# fmt: on
