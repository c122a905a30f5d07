"""`make proof`: what runs beside what, and what RESULTS.md shows."""

import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from proof import __main__ as proof
from proof.promises import PROMISES, Load
from proof.results import Result, Results, Trial, WholeRun
from tests.support import ROOT

PROOF = ROOT / "proof"
LONGEST_ROW = 160
"""characters; the table of the promises fits on a screen"""


def result(*trials: Trial, passed: bool = True, seed: int = 7) -> Result:
    return Result(passed, 10, seed, "2026-11-28", list(trials))


def rows(markdown: str) -> list[list[str]]:
    """The table of the promises."""
    summary = markdown.partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in summary.splitlines() if line.startswith("| ")][2:]


def test_every_campaign_has_a_promise() -> None:
    campaigns = {path.stem.removeprefix("test_") for path in PROOF.glob("test_*.py")}
    assert campaigns == set(PROMISES)


def test_the_readme_names_campaigns_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    promised = text[text.index("**Promised**") : text.index("**Not promised")]
    named = {
        name
        for names in re.findall(r"\(((?:`\w+`(?:, )?)+)\)", promised)
        for name in re.findall(r"\w+", names)
    }
    assert len(named) > 5
    assert named <= set(PROMISES)


def test_the_results_are_rendered_and_fit_on_a_screen() -> None:
    text = (PROOF / "RESULTS.md").read_text()
    assert text == Results.load(PROOF / "results.json").markdown()
    lines = text.partition("\n## ")[0].splitlines()
    assert [line for line in lines if len(line) > LONGEST_ROW] == []


def test_a_run_of_one_campaign_keeps_the_results_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    whole = WholeRun(3000, 7, "2026-11-28")
    Results({"time": result(Trial("step back")), "soak": result(passed=False)}, whole).save(path)
    results = Results.load(path)
    results.promises["soak"] = result(Trial("10 minutes", "no error"), seed=8)
    results.save(path)
    kept = Results.load(path)
    assert kept.promises["time"] == result(Trial("step back"))
    assert kept.promises["soak"].seed == 8
    assert "seed 7, 50 minutes" in kept.markdown()


def test_a_row_adds_up_the_counts_of_a_campaign() -> None:
    trials = (
        Trial("a", counts={"kills": 1000, "writes": 1}),
        Trial("b", counts={"kills": 500}, figures="2 ms"),
    )
    ((name, _, tried, outcome, *_),) = rows(Results({"crash": result(*trials)}).markdown())
    assert (name, tried, outcome) == ("crash", "1,500 kills, 1 writes", "2 ms")


def test_a_failed_campaign_is_shown_in_its_row_and_in_its_details() -> None:
    text = Results({"crash": result(Trial("kill -9"), passed=False)}).markdown()
    assert rows(text)[0][3] == "FAILED"
    assert "| kill -9 | all |\n| the rest | FAILED |" in text


def test_what_measures_latencies_runs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After the others, of which two compute and one waits at the same time on two cores."""
    together = threading.Barrier(3)
    ended: list[str] = []

    def run(name: str, *_: object) -> Result:
        if PROMISES[name].load is Load.TIMED:
            assert len(ended) >= 3
        else:
            together.wait(10)
        ended.append(name)
        return result()

    monkeypatch.setattr(proof, "run", run)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    names = ["soak", "stuck_neighbour", "model", "sales", "time"]
    assert proof.run_all(names, 7, tmp_path, Console(quiet=True), Results()).keys() == set(names)
    assert set(ended[3:]) == {"soak", "stuck_neighbour"}
