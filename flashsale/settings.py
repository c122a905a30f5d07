"""Settings of the command line, from environment variables; docs/reference.md lists them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flashsale.errors import UserError

DEFAULT_DATA_DIRECTORY = ".flashsale"
"""below the current directory"""


@dataclass(frozen=True)
class Settings:
    """Where the HTTP server listens, and which database it uses."""

    host: str
    port: int
    data_directory: Path
    database_url: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """:raises UserError: a variable is not valid"""
        port = environment.get("FLASHSALE_PORT") or "8000"
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise UserError(f"FLASHSALE_PORT must be a port number from 1 to 65535, not {port!r}")
        return cls(
            host=environment.get("FLASHSALE_HOST") or "127.0.0.1",
            port=int(port),
            data_directory=Path(environment.get("FLASHSALE_DATA_DIR") or DEFAULT_DATA_DIRECTORY).absolute(),
            database_url=environment.get("FLASHSALE_DATABASE_URL") or _only_url(environment),
        )

    @property
    def base_url(self) -> str:
        """The URL for clients on this machine: a loopback address if the server listens on all addresses."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def _only_url(environment: Mapping[str, str]) -> str | None:
    """The database in FLASHSALE_DATABASE_URLS, if it is one."""
    urls = environment.get("FLASHSALE_DATABASE_URLS", "").split()
    return urls[0] if len(urls) == 1 else None
