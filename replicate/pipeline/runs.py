"""Writes the run log: for each stage command a line of JSON with what differs between runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from replicate import __version__
from replicate.errors import UserError
from replicate.pipeline import environment, git, outlook

CODE = ("replicate", "params.yaml", "dvc.yaml", "requirements")  # what results depend on


@contextmanager
def logged(log: Path, benchmarks: Path, stage: str, argument: str | None) -> Iterator[None]:
    """Appends a line to the log when the body ends or fails.

    If the log cannot be written, the stage goes on without it. If DVC runs the stage, the time that
    the demo study still takes is printed first (see `outlook`).

    Args:
        log: the file of the log.
        benchmarks: the file with the recorded run of the demo study.
        stage: the name of the stage.
        argument: the study or family of the stage.
    """
    begun, start, ended = datetime.now(UTC), time.perf_counter(), "error"
    commit, changed = None, None
    with suppress(UserError):
        commit, changed = git.state(CODE)
    if "DVC_STAGE" in os.environ:
        with suppress(OSError, json.JSONDecodeError, psutil.Error):
            done = _done_by(psutil.Process(os.getppid()), log)
            outlook.announce(benchmarks, done, stage, argument)
    try:
        yield
        ended = "done"
    finally:
        line = {
            "stage": stage,
            "argument": argument,
            "ended": ended,
            "started": begun.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - start, 2),
            "commit": commit,
            "changed": changed,
            "device": environment.device(),
            "versions": environment.versions() | {"replicate": __version__},
        }
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _done_by(command: psutil.Process, log: Path) -> set[outlook.Stage]:
    """Returns the stages that the log says were done since a command began."""
    begun = datetime.fromtimestamp(int(command.create_time()), UTC).isoformat()
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines() if log.exists() else ())
    return {
        (line["stage"], line["argument"])
        for line in lines
        if line["ended"] == "done" and line["started"] >= begun
    }
