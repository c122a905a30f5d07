"""A real Chromium, Debian's own, and a sale for it to look at.

One database and one server serve this whole package; what each test has to itself is its product.

Fixtures
--------
db          a superuser's psycopg connection to the database, autocommit
server      base URL of gunicorn serving it
client      an httpx client of the server
product     id of a new product with 50 in stock at 99.00 USD
hold_time   hold_time(seconds) makes holds last so long, until the test ends
starts_in   starts_in(seconds) makes the sale of the product start then, by the database's clock
open_page   opens the live page in a browser of its own, as another buyer would: open_page(), open_page(url,
            viewport=PHONE, …); `script` runs before the page's own; without `live`, its stream is not waited
            for; fails the test at its end if a page complained on the console, or sent a request to another
            server
buyer       open_page(), once

Playwright's own download of a browser is not needed. Its event loop must be gone before other tests run
theirs: hence one browser for this package, and not for the run.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urljoin

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import PORT, SUPERUSER, Cluster
from tests.support.http import running_server
from tests.support.sql_calls import change_terms

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# As root there is no sandbox; the rest keeps Chromium from looking for Google.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}

PATIENCE = float(os.environ.get("FLASHSALE_PAGE_PATIENCE", "60"))
"""seconds until a test that waits in vain fails; long, because a slow machine is no failure"""

Open = Callable[..., Page]


@pytest.fixture(scope="package")
def database(cluster: Cluster) -> Iterator[str]:
    name = "flashsale_page"
    with DatabaseJanitor(user=SUPERUSER, host=str(cluster.socket_directory), port=PORT, dbname=name):
        url = cluster.url(SUPERUSER, name)
        migrate(url, schedule=False, say=lambda _: None)
        with psycopg.connect(url, autocommit=True) as conn:
            create_app_role(conn)
        yield name


@pytest.fixture(scope="package")
def server(cluster: Cluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "gunicorn.log"
    with running_server(cluster.url(APP_ROLE, database), log) as url:
        yield url
    assert "Traceback" not in log.read_text()


@pytest.fixture
def db(cluster: Cluster, database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(cluster.url(SUPERUSER, database), autocommit=True) as conn:
        yield conn


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=PATIENCE) as opened:
        yield opened


@pytest.fixture
def product(db: psycopg.Connection) -> int:
    return db.execute("select flashsale.create_product('Limited sneaker', 50, 99, 'USD')").fetchone()[0]


@pytest.fixture
def hold_time(db: psycopg.Connection) -> Iterator[Callable[[float], None]]:
    def change(seconds: float) -> None:
        db.execute("select flashsale.change_settings(p_hold_time => make_interval(secs => %s))", (seconds,))

    yield change
    change(120)


@pytest.fixture
def starts_in(db: psycopg.Connection, product: int) -> Callable[[float], datetime]:
    def change(seconds: float) -> datetime:
        query = "select clock_timestamp() + make_interval(secs => %s)"
        (starts_at,) = db.execute(query, (seconds,)).fetchone()
        change_terms(db, product, starts_at=starts_at)
        return starts_at

    return change


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("there is no Chromium on this machine")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, server: str, product: int) -> Iterator[Open]:
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def open_one(
        url: str | None = None,
        *,
        viewport: dict[str, int] = DESKTOP,
        live: bool = True,
        script: str | None = None,
        **options: Any,
    ) -> Page:
        context = browser.new_context(viewport=viewport, locale="en-GB", **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        if script is not None:
            page.add_init_script(script)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        address = urljoin(server, url or f"/?product={product}")
        own = urljoin(address, "/")
        page.on("request", lambda request: request.url.startswith(own) or complaints.append(request.url))
        page.goto(address)
        if live:
            expect(page.get_by_text("Live", exact=True)).to_be_visible()
        return page

    yield open_one
    for context in contexts:
        context.close()
    # Chromium itself notes every answer that is no success; the page means to show those.
    assert [said for said in complaints if not said.startswith("Failed to load resource")] == []


@pytest.fixture
def buyer(open_page: Open) -> Page:
    return open_page()
