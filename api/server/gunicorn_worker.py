"""gunicorn's worker: uvicorn, with this project's protocol and settings."""

from uvicorn_worker import UvicornWorker

from api.server.http_protocol import uvicorn_settings


class Worker(UvicornWorker):
    CONFIG_KWARGS = uvicorn_settings()
