"""What the demo study took on this machine: seconds of each stage, from the run log, into
results.json.

make demo && python -m benchmarks.demo
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.results import merged, read
from replicate.data.json_io import write_json
from replicate.pipeline.config import load

LOG = Path("logs/runs.jsonl")
RESULTS = Path(__file__).with_name("results.json")


def spent(lines: list[dict[str, object]], arguments: set[str]) -> dict[str, dict[str, float]]:
    """Seconds by stage and argument, of the last time that each came to its end; `arguments`: those
    of the demo study.
    """
    seconds: dict[str, dict[str, float]] = {}
    for line in lines:
        argument = str(line["argument"] or "")
        if line["ended"] == "done" and (not argument or argument in arguments):
            seconds.setdefault(str(line["stage"]), {})[argument] = float(str(line["seconds"]))
    return seconds


def main() -> None:
    if not LOG.is_file():
        sys.exit(f"error: {LOG}: missing; run `make demo` first")
    params = load()
    families = params.studies["demo"].families
    names = {
        "demo",
        *families,
        *(model for family in families for model in params.models_of(family)),
    }
    found = spent(
        [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()], names
    )
    machine, reports = describe(), read(RESULTS)
    new = {"machine": asdict(machine), "works": {}, "demo": {"seconds": found}}
    write_json(RESULTS, merged(reports, machine.name, new))
    for stage, each in sorted(found.items(), key=lambda item: -sum(item[1].values())):
        print(f"{stage:<14}{sum(each.values()):8.1f} s{len(each):5} runs")
    print(f"{'all':<14}{sum(sum(each.values()) for each in found.values()):8.1f} s")


if __name__ == "__main__":
    main()
