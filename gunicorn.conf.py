"""gunicorn -c gunicorn.conf.py: all other settings come from the environment (api/settings.py)."""

import gc
import logging
import os
import shutil
import sys
import tempfile

from api.server.open_files import raise_soft_limit
from api.settings import InvalidSettings, Settings

try:
    _settings = Settings.from_environment(os.environ)
except InvalidSettings as error:
    sys.exit(f"flashsale: {error}")

raise_soft_limit()  # workers inherit it

wsgi_app = "api.app:from_environment()"
worker_class = "api.server.gunicorn_worker.Worker"
bind = [f"{_settings.host}:{_settings.port}"]
if _settings.metrics_port is not None:
    bind.append(f"{_settings.metrics_host}:{_settings.metrics_port}")

# One process makes the largest batches, and competes with no other for a hot row. More processes help only
# where Python is limited by one core. Each has its own connections: 10 when idle, at most 18, and one more
# while metrics are scraped (api/database/client.py).
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))

# Workers share their metrics in files of this directory. This file is loaded by the master: after a reload it
# keeps its directory; a master started by another one (USR2) creates a new directory.
_shared = os.environ.pop("PROMETHEUS_MULTIPROC_DIR", "")
if workers > 1 and _settings.metrics_port is not None:
    if not _shared.endswith(f".{os.getpid()}"):
        _shared = tempfile.mkdtemp(prefix="flashsale-metrics-", suffix=f".{os.getpid()}")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _shared

keepalive = _settings.keepalive_seconds
timeout = 30  # seconds without a heartbeat until a worker is killed
graceful_timeout = 15  # seconds; responses take at most 2
preload_app = False  # connections do not survive a fork
control_socket_disable = True  # its path is the same for all servers of a user
logger_class = "api.telemetry.logging.Logger"


def post_worker_init(worker):
    """Log to gunicorn's handlers, and exclude what lives as long as the process from garbage collection."""
    # Reference counting frees what a request allocates. Searching all imported objects for cycles, every 700
    # allocations, takes a tenth of the processor time under load.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    log = logging.getLogger("flashsale")
    log.handlers = logging.getLogger().handlers = worker.log.error_log.handlers
    log.setLevel(worker.log.error_log.level)
    log.propagate = False
    if _settings.allow_unsigned_webhooks:
        log.warning("unsigned webhooks are accepted: FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS is set")
    if _settings.page and not os.environ.get("FLASHSALE_PAGE"):
        log.warning("the demo page and /docs are served: set FLASHSALE_PAGE=0 in production, 1 otherwise")
    if _settings.trust_buyer:
        log.warning("any client can name the buyer of a hold: FLASHSALE_TRUST_BUYER is set")


def child_exit(server, worker):
    """Keep a dead worker's counters, and remove its gauges."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def on_exit(server):
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
