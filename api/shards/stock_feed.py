"""The stock feed over several shards: a poller for each slot, so that trouble stays with its products."""

from collections.abc import AsyncIterator

from falcon.asgi import SSEvent

from api.database.errors import Overloaded
from api.shards.client import ShardedClient
from api.stock_feed import Limits, StockFeed, Subscriber


class ShardedStockFeed(StockFeed):
    """A feed for each slot that has subscribers. It follows its slot to another shard."""

    def __init__(
        self, client: ShardedClient, limits: Limits | None = None, *, with_taken_units: bool = True
    ) -> None:
        super().__init__(client, limits, with_taken_units=with_taken_units)
        self._sharded = client
        self._feeds: dict[int, StockFeed] = {}

    def check_capacity(self) -> None:
        if sum(feed.subscribers for feed in self._feeds.values()) >= self._limits.max_subscribers:
            raise Overloaded(f"{self._limits.max_subscribers} subscribers are connected")

    def events(self, product_id: int, subscriber: Subscriber, after: int) -> AsyncIterator[SSEvent]:
        slot = product_id % max(1, self._sharded.ownership.slots)
        feed = self._feeds.get(slot)
        if feed is None:
            feed = StockFeed(self._client, self._limits, with_taken_units=self._with_taken_units)
            self._feeds[slot] = feed
        return feed.events(product_id, subscriber, after)

    def close(self) -> None:
        for feed in self._feeds.values():
            feed.close()
