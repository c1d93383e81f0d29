"""Without a terminal, progress is plain lines with the time that is left."""

from __future__ import annotations

import pytest

from replicate import progress as module
from replicate.progress import progress


def test_plain_lines_say_how_much_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After 20 s for 40 of 100 steps, 30 s are left. Lines come every 15 s and at the end."""
    clock = iter([0.0, 10.0, 20.0, 24.0, 50.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("search", 100) as advance:
        advance(20)
        advance(20, "loss 2.0")
        advance(0)
        advance(60)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["search: 40/100, 30 s left loss 2.0", "search: 100/100, 0 s left"]
