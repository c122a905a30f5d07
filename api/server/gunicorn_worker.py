"""gunicorn's worker: uvicorn, with this project's protocol and settings."""

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped] # it has no type hints

from api.server.http_protocol import uvicorn_settings


class Worker(UvicornWorker):  # type: ignore[misc] # untyped base class
    CONFIG_KWARGS = uvicorn_settings()
