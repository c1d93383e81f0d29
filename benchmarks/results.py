"""What `results.json` holds: for each machine its description, the rates behind the limit, and for
each work what ours and each peer took.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.limit import Rates, limit, moved, needed
from benchmarks.machine import Machine, describe
from benchmarks.measure import Measurement
from benchmarks.peers import version
from benchmarks.rounds import Runs, Timings
from benchmarks.work import Work, parameters
from replicate.data.json_io import rounded, write_json
from replicate.pipeline import git

FILE = Path(__file__).with_name("results.json")
Report = dict[str, Any]  # of one machine


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def row(
    work: Work, lack: str | None, timings: dict[str, Runs], rates: dict[str, Rates]
) -> dict[str, Any]:
    """Returns the results of one work; `lack` says why it was not run.

    Ratios are a peer's value over ours, taken within a round; above 1, ours is the better.
    """
    about = {
        "parameters": parameters(work),
        "chains": work.chains,
        "batch": work.batch,
        "length": work.length,
        "compute_dtype": work.compute_dtype,
        "peers_logits": work.logits,
        "operations": needed(work),
        "bytes": moved(work),
    }
    if lack is not None:
        return about | {"status": "not run", "lack": lack}
    least = limit(work, rates[work.compute_dtype])
    ours = timings["ours"]
    if not ours.rounds:
        return about | {"status": "not run", "lack": ours.lack or "the time was over"}
    return about | {
        "status": "run",
        "commit": git.state()[0],
        "steps": work.steps,
        "limit": least,
        "measured": {name: entry(runs, ours.rounds, least) for name, runs in timings.items()},
        "versions": {name: version(name) for name in timings if name != "ours"},
    }


def entry(runs: Runs, ours: Sequence[Measurement], least: float) -> dict[str, Any]:
    if not runs.rounds:
        return {"status": "not run", "lack": runs.lack or "the time was over"}
    pairs = list(zip(runs.rounds, ours, strict=False))
    return {
        "status": "run",
        "rounds": len(runs.rounds),
        "seconds": spread([m.seconds for m in runs.rounds]),
        "raw_seconds": [m.seconds for m in runs.rounds],
        "fixed_seconds": spread([m.fixed for m in runs.rounds]),
        "peak_bytes": spread([m.peak for m in runs.rounds]),
        "bytes_above_imports": spread([m.above for m in runs.rounds]),
        "fraction_of_limit": least / median(m.seconds for m in runs.rounds),
    } | (
        {
            "ratio": spread([theirs.seconds / our.seconds for theirs, our in pairs]),
            "memory_ratio": spread([theirs.above / our.above for theirs, our in pairs]),
        }
        if pairs
        else {}
    )


def report(
    machine: Machine,
    rates: dict[str, Rates],
    works: Sequence[Work],
    lacks: dict[str, str],
    timings: Timings,
) -> Report:
    """Returns the results of a machine; `lacks` says why a work was not run, by its name."""
    return {
        "machine": asdict(machine),
        "rates": {dtype: asdict(rate) for dtype, rate in rates.items()},
        "works": {
            work.name: row(work, lacks.get(work.name), timings.get(work.name, {}), rates)
            for work in works
        },
    }


def read(path: Path) -> dict[str, Report]:
    """Returns the reports of all machines, by the machine's name."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def merged(reports: dict[str, Report], name: str, new: Report) -> dict[str, Report]:
    """Puts the works and rates of `new` in place of the same machine's; its other results stay."""
    old = reports.get(name, {})
    if old.get("machine") != new["machine"]:
        old = {}
    grown = {key: old.get(key, {}) | new[key] for key in ("rates", "works") if key in new}
    return reports | {name: old | new | grown}


def add(**found: Any) -> None:
    """Prints what was found out about this machine and adds it to results.json."""
    machine = describe()
    report = {"machine": asdict(machine), "works": {}} | found
    write_json(FILE, merged(read(FILE), machine.name, report))
    print(json.dumps(rounded(found), indent=1, ensure_ascii=False))
