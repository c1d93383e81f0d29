"""A stage of the demo study says what is left, from a recorded run and this machine's speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicate import progress
from replicate.pipeline import outlook

STAGES = [["extract", "mini", 10], ["pretrain", "mini", 100], ["summary", "demo", 40]]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A run recorded on a machine twice as fast as this one."""
    monkeypatch.setattr(progress, "after", None)
    (tmp_path / "results.json").write_text(
        json.dumps({"a GPU": {}, "laptop": {"demo": {"probe": 0.1, "stages": STAGES}}})
    )
    (tmp_path / "speed").write_text("0.2")
    return tmp_path / "results.json", tmp_path / "speed"


def test_a_stage_tells_what_is_left_and_what_comes_after_it(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    outlook.announce(*places, {("extract", "mini")}, "pretrain", "mini")
    assert capsys.readouterr().out == "demo: stage 2 of 3, about 5 min left here\n"
    with progress.progress("pretrain", 1) as advance:
        advance(1)
    assert capsys.readouterr().err == "pretrain: 1/1, 0 s left (80 s of all)\n"


def test_the_order_in_which_stages_run_does_not_matter(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    outlook.announce(*places, {("summary", "demo"), ("pretrain", "mini")}, "extract", "mini")
    assert capsys.readouterr().out == "demo: stage 3 of 3, about 20 s left here\n"


@pytest.mark.parametrize("stage", [("pretrain", "gpt2"), ("published", None)])
def test_what_was_not_recorded_has_no_outlook(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str], stage: tuple[str, str | None]
) -> None:
    outlook.announce(*places, (), *stage)
    places[0].write_text("{")
    outlook.announce(*places, (), "pretrain", "mini")
    assert capsys.readouterr().out == ""
    assert progress.after is None


def test_the_speed_of_a_machine_is_measured_once(places: tuple[Path, Path]) -> None:
    places[1].unlink()
    outlook.announce(*places, (), "pretrain", "mini")
    measured = places[1].read_text()
    assert 0.001 < float(measured) < 100
    outlook.announce(*places, (), "summary", "demo")
    assert places[1].read_text() == measured
