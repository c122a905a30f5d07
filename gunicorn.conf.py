"""gunicorn -c gunicorn.conf.py: everything else comes from the environment (api/settings.py)."""

import gc
import logging
import os
import shutil
import sys
import tempfile

from api.settings import InvalidSettings, Settings

try:
    _settings = Settings.from_environment(os.environ)
except InvalidSettings as error:
    sys.exit(f"flashsale: {error}")

wsgi_app = "api.app:application"
worker_class = "api.server.gunicorn_worker.Worker"
bind = [f"{_settings.host}:{_settings.port}"]
if _settings.metrics_port is not None:
    bind.append(f"{_settings.metrics_host}:{_settings.metrics_port}")

# One process joins all requests into the fewest calls, and shares no hot row with a sibling. More only help
# where Python alone is short of a core; each brings its own 7 to 13 connections (api/database/client.py).
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))

# Workers add up their counts in files of this folder. Whoever loads this file is their master: it keeps its
# folder when told to reload, and makes a new one if it was started by another master that is to go (USR2).
_shared = os.environ.pop("PROMETHEUS_MULTIPROC_DIR", "")
if workers > 1 and _settings.metrics_port is not None:
    if not _shared.endswith(f".{os.getpid()}"):
        _shared = tempfile.mkdtemp(prefix="flashsale-metrics-", suffix=f".{os.getpid()}")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _shared

keepalive = 75  # seconds; longer than common load balancers keep an idle connection
timeout = 30  # seconds without a heartbeat until a worker counts as hung
graceful_timeout = 15  # seconds; requests are answered within 2
preload_app = False  # connections do not survive a fork
control_socket_disable = True  # its one path a user would be shared by every server of that user
logger_class = "api.telemetry.logging.Logger"


def post_worker_init(worker):
    """Log where gunicorn logs, to stderr, and leave what lives as long as the process to no collector."""
    # What a request leaves behind goes by reference counting. Looking for cycles among everything that was
    # imported, every 700 objects, costs a tenth of the processor under load.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    log = logging.getLogger("flashsale")
    log.handlers = logging.getLogger().handlers = worker.log.error_log.handlers
    log.setLevel(worker.log.error_log.level)
    log.propagate = False
    if _settings.allow_unsigned_webhooks:
        log.warning("webhooks are believed without a signature: FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS is set")


def child_exit(server, worker):
    """What a worker counted stays counted; what it was goes with it."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def on_exit(server):
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
