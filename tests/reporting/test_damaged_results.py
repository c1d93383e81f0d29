"""What reads results refuses a file that is missing or was emptied, before it writes anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from replicate.pipeline.config import Config
from replicate.pipeline.stages import published, read, reference, report, summary
from replicate.study.records import COLLECTED
from tests.pipeline.small import files, told


@pytest.fixture
def copied(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, which is the working directory of the test."""
    shutil.copytree(project, tmp_path / "copied")
    monkeypatch.chdir(tmp_path / "copied")
    return tmp_path / "copied"


Stage = Callable[[Config], object]
STUDY: dict[str, Stage] = {
    "read": lambda config: read.run(config, "control"),
    "summary": lambda config: summary.run(config, "control"),
    "report": report.run,
}


def refuses(folder: Path, stage: Callable[[], object], *words: str) -> None:
    before = files(folder)
    told(stage, *words)
    assert files(folder) == before


@pytest.mark.fault("A3")
@pytest.mark.parametrize("stage", STUDY)
def test_no_stage_reads_a_study_without_one_of_its_files(
    config: Config, copied: Path, stage: str
) -> None:
    for name in COLLECTED:
        file = Path("results/control") / f"{name}.json"
        whole = file.read_bytes()
        for content in (None, b"", b"{}"):
            file.unlink() if content is None else file.write_bytes(content)
            refuses(copied, lambda: STUDY[stage](config), str(file))
        file.write_bytes(whole)
    STUDY[stage](config)


@pytest.mark.fault("A3")
@pytest.mark.parametrize("stage", STUDY)
def test_no_stage_reads_a_study_whose_estimates_were_emptied(
    config: Config, copied: Path, stage: str
) -> None:
    Path("results/control/estimates.json").write_text("[]")
    said = "results/control: estimates.json has no row of 10k-1, which was sampled"
    refuses(copied, lambda: STUDY[stage](config), said)


@pytest.mark.fault("A3")
@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("control/claims.json", STUDY["summary"]),
        ("control/claims.json", report.run),
        ("control/calibration.json", STUDY["summary"]),
        ("control/coverage.json", reference.run),
        ("control/controls.json", reference.run),
        ("published/claims.json", reference.run),
        ("published/anova.json", reference.run),
        ("published/aggregates.json", report.run),
    ],
)
def test_what_is_never_empty_is_refused_if_it_is(
    config: Config, copied: Path, file: str, stage: Stage
) -> None:
    (copied / "results" / file).write_text("[]")
    refuses(copied, lambda: stage(config), f"results/{file}: it has no row; run the stage that")


@pytest.mark.fault("A3")
def test_a_verdict_that_was_taken_out_is_told(config: Config, copied: Path) -> None:
    file = copied / "results" / "published" / "claims.json"
    file.write_text(file.read_text().replace('"id": "C4"', '"id": "C99"'))
    refuses(copied, lambda: reference.run(config), "has no row of C4; run `dvc repro published`")
    published.run(config)
    reference.run(config)


@pytest.mark.fault("A3")
@pytest.mark.parametrize("name", ["transfer", "original", "quantisation"])
def test_an_experiment_without_rows_has_not_run(
    config: Config, copied: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    summary.run(config, "control")
    assert "control: not all of neighbours. It has no verdict on R1" in capsys.readouterr().out
    (copied / "results" / "control" / f"{name}.json").write_text("[]")
    summary.run(config, "control")
    assert f"control: not all of neighbours, {name}." in capsys.readouterr().out
