"""The examples of README.md (tour and rehearsal), run in order against `flashsale up`."""

from pathlib import Path

import pytest

from tests.docs.documents import Reader
from tests.support import ROOT
from tests.support.flashsale_up import FLASHSALE, Up, data_folder


@pytest.mark.slow
def test_every_command_prints_what_the_readme_says(tmp_path: Path) -> None:
    with data_folder() as folder:
        up = Up(folder, [*FLASHSALE, "up"]).wait_until_it_is_up()
        try:
            instead = {"localhost:8000": f"localhost:{up.port}"}
            where = {"FLASHSALE_DATA_DIR": str(folder), "FLASHSALE_PORT": str(up.port)}
            with Reader(tmp_path, instead=instead, environment=where) as reader:
                reader.type_all(ROOT / "README.md")
        finally:
            up.stop()
