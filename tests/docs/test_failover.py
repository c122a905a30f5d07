"""The examples of docs/failover.md, on three machines that are set up by the files that it installs."""

from pathlib import Path

import psycopg
import pytest

from flashsale.local.cluster import SUPERUSER
from tests.docs.documents import Reader, examples
from tests.docs.test_operations import OPERATIONS, SET_UP
from tests.support import ROOT, servers
from tests.support.database import needs_pg_cron
from tests.support.patroni import NETWORK, QUICKEST, running_nodes
from tests.support.sale_steps import audit, create_product, one, order

FAILOVER = ROOT / "docs/failover.md"
PATRONICTL = "sudo -u postgres /opt/patroni/bin/patronictl -c /etc/patroni/patroni.yml"


@pytest.mark.slow
@servers.needs("etcd", "patroni")
@needs_pg_cron
def test_the_failover_document(tmp_path: Path) -> None:
    with running_nodes(QUICKEST) as shop:
        superuser = shop.url(SUPERUSER, "postgres")
        # As the set-up has it: the role that migrates, and its database.
        database = next(example for example in examples(OPERATIONS, SET_UP) if example.kind == "sql")
        instead = {PATRONICTL: " ".join(shop.nodes[0].patronictl_command()), NETWORK: shop.network}
        with Reader(tmp_path, superuser=superuser, instead=instead) as reading:
            reading.check(database)
            old = shop.primary()
            for example in examples(FAILOVER):
                reading.check(example)
                if "flashsale migrate" in example.text:
                    with psycopg.connect(shop.url(SUPERUSER, "flashsale"), autocommit=True) as conn:
                        before = order(conn, create_product(conn))
                elif "switchover" in example.text:
                    assert shop.primary() is not old
        with psycopg.connect(shop.url(SUPERUSER, "flashsale"), autocommit=True) as conn:
            assert order(conn, one(conn, "select min(product_id) from flashsale.stock")) > before + 1_000_000
            assert audit(conn) == []
