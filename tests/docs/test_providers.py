"""The examples of docs/providers.md, run in order against `flashsale up`."""

from pathlib import Path

import pytest

from tests.docs.documents import Reader
from tests.support import ROOT
from tests.support.flashsale_up import FLASHSALE, Up, data_folder
from tests.support.provider_events import STRIPE_SECRET


@pytest.mark.slow
def test_every_command_prints_what_the_document_says(tmp_path: Path) -> None:
    secret = {"FLASHSALE_STRIPE_SECRETS": STRIPE_SECRET}
    with data_folder() as folder:
        up = Up(folder, [*FLASHSALE, "up"], **secret).wait_until_it_is_up()
        try:
            instead = {"localhost:8000": f"localhost:{up.port}"}
            where = {"FLASHSALE_DATA_DIR": str(folder), "FLASHSALE_PORT": str(up.port)}
            with Reader(tmp_path, instead=instead, environment=where | secret) as reader:
                reader.type_all(ROOT / "docs/providers.md")
        finally:
            up.stop()
