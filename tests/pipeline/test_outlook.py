"""A stage of the demo study says what is left, from a recorded run and this machine's speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicate import progress
from replicate.pipeline import outlook

STAGES = [["extract", "mini", 10], ["pretrain", "mini", 100], ["summary", "demo", 40]]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run recorded on a machine twice as fast as this one."""
    monkeypatch.setattr(progress, "after", None)
    monkeypatch.setattr(outlook, "probe", lambda: 0.2)
    runs = {"a GPU": {}, "laptop": {"demo": {"probe": 0.1, "stages": STAGES}}}
    (tmp_path / "results.json").write_text(json.dumps(runs))
    return tmp_path / "results.json"


def test_a_stage_tells_what_is_left_and_what_comes_after_it(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the order in which the stages run."""
    outlook.announce(recorded, {("summary", "demo"), ("pretrain", "mini")}, "extract", "mini")
    assert capsys.readouterr().out == "demo: stage 3 of 3, about 20 s left here\n"
    outlook.announce(recorded, {("extract", "mini")}, "pretrain", "mini")
    assert capsys.readouterr().out == "demo: stage 2 of 3, about 5 min left here\n"
    with progress.progress("pretrain", 1) as advance:
        advance(1)
    assert capsys.readouterr().err == "pretrain: 1/1, 0 s left (80 s of all)\n"


@pytest.mark.parametrize("stage", [("pretrain", "gpt2"), ("published", None)])
def test_what_was_not_recorded_has_no_outlook(
    recorded: Path, capsys: pytest.CaptureFixture[str], stage: tuple[str, str | None]
) -> None:
    outlook.announce(recorded, (), *stage)
    recorded.write_text("{")
    outlook.announce(recorded, (), "pretrain", "mini")
    assert capsys.readouterr().out == ""
    assert progress.after is None
