"""What `results.json` says: per machine its description, the limit's rates, and per work what ours
and each peer took.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.limit import Rates, limit, moved, needed
from benchmarks.machine import Machine
from benchmarks.measure import Measurement
from benchmarks.peers import version
from benchmarks.rounds import Runs, Timings
from benchmarks.work import Work, parameters

Report = dict[str, Any]  # of one machine


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def row(work: Work, lack: str | None, timings: dict[str, Runs], rates: Rates) -> dict[str, Any]:
    """Of one work; `lack` says why it was not run. Ratios are a peer's over ours, round by round:
    above 1, ours is the better.
    """
    about = {
        "parameters": parameters(work),
        "chains": work.chains,
        "batch": work.batch,
        "length": work.length,
        "products": work.products,
        "peers_logits": work.logits,
        "operations": needed(work),
        "bytes": moved(work),
        "limit": limit(work, rates),
    }
    if lack is not None:
        return about | {"status": "not run", "lack": lack}
    ours = timings["ours"]
    return about | {
        "status": "run",
        "steps": work.steps,
        "measured": {
            name: entry(runs, ours.rounds, about["limit"]) for name, runs in timings.items()
        },
        "versions": {name: version(name) for name in timings if name != "ours"},
    }


def entry(runs: Runs, ours: Sequence[Measurement], least: float) -> dict[str, Any]:
    if runs.lack is not None:
        return {"status": "not run", "lack": runs.lack}
    pairs = list(zip(runs.rounds, ours, strict=False))
    return {
        "status": "run",
        "rounds": len(runs.rounds),
        "seconds": spread([m.seconds for m in runs.rounds]),
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
    """`lacks`: why a work was not run, by its name."""
    return {
        "machine": asdict(machine),
        "rates": {dtype: asdict(rate) for dtype, rate in rates.items()},
        "works": {
            work.name: row(
                work, lacks.get(work.name), timings.get(work.name, {}), rates[work.products]
            )
            for work in works
        },
    }


def read(path: Path) -> dict[str, Report]:
    """All machines' reports, by the machine's name."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def merged(reports: dict[str, Report], name: str, new: Report) -> dict[str, Report]:
    """With the works and rates of `new` in place of the same machine's own; what else was found out
    about that machine stays.
    """
    old = reports.get(name, {})
    if old.get("machine") != new["machine"]:
        old = {}
    grown = {key: old.get(key, {}) | new[key] for key in ("rates", "works") if key in new}
    return reports | {name: old | new | grown}
