"""The run log: a line of JSON for every stage command when it ends, with what differs from run to
run and so is in no result.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from replicate import __version__
from replicate.errors import UserError
from replicate.pipeline import environment, interruption
from replicate.pipeline import git as revisions

CODE = (
    "replicate",
    "params.yaml",
    "dvc.yaml",
    "requirements",
)  # what makes a work tree dirty: what a result depends on


@contextmanager
def logged(log: Path, params: Path, stage: str, argument: str | None) -> Iterator[None]:
    """Appends the line when the body ends or fails, from the first of several processes. No failure
    of its own stops a stage.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    begun, start = datetime.now(UTC), time.perf_counter()
    commit, dirty = standing()
    digest = hashlib.sha256(params.read_bytes()).hexdigest() if params.is_file() else None

    def note(ended: str) -> None:
        line = {
            "stage": stage,
            "argument": argument,
            "ended": ended,
            "started": begun.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - start, 2),
            "commit": commit,
            "dirty": dirty,
            "params": digest,
            "device": device(),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "versions": environment.versions() | {"replicate": __version__},
        }
        append(log, line)

    interruption.last_words.append(lambda: note("interrupted"))
    try:
        yield
    except BaseException:
        note("error")
        raise
    else:
        note("done")
    finally:
        interruption.last_words.clear()


def standing() -> tuple[str | None, bool | None]:
    """null for both where git cannot say."""
    try:
        return revisions.state(CODE)
    except UserError:
        return None, None


def device() -> str | None:
    """null where a GPU that failed the stage no longer tells its name, or torch is just being
    imported.
    """
    try:
        return environment.device()
    except (AttributeError, OSError, RuntimeError):
        return None


def append(log: Path, line: dict[str, object]) -> None:
    """In one piece, so that the lines of stages that end together do not mix; nothing where the
    disk takes none.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError:
        return
