"""`make demo && python -m benchmarks.demo`: the seconds of each stage of the demo study on this
machine, from the run log, into results.json.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks import results
from replicate.pipeline import config as parameters


def spent(lines: list[dict[str, Any]], arguments: set[str]) -> dict[str, dict[str, float]]:
    """Returns the seconds of the last finished run, by stage and argument.

    Args:
        lines: of the run log.
        arguments: those of the demo study.
    """
    seconds: dict[str, dict[str, float]] = {}
    for line in lines:
        argument = line["argument"] or ""
        if line["ended"] == "done" and (not argument or argument in arguments):
            seconds.setdefault(line["stage"], {})[argument] = line["seconds"]
    return seconds


def main() -> None:
    """Reads the log, prints the seconds of each stage and adds them to results.json."""
    config = parameters.load()
    log = config.paths.logs / "runs.jsonl"
    if not log.is_file():
        sys.exit(f"error: {log}: missing; run `make demo` first")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    results.add(demo={"seconds": spent(lines, {"demo", *config.studies["demo"].families})})


if __name__ == "__main__":
    main()
