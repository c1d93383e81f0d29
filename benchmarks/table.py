"""The results as one table."""

from __future__ import annotations

from typing import Any

from benchmarks.results import Report
from benchmarks.work import WORKS

HEADS = (
    "machine",
    "work",
    "ours, s per chain-step",
    "peer, s per chain-step",
    "ratio",
    "peak-memory ratio",
    "fraction of the limit",
)


def table(reports: dict[str, Report]) -> str:
    """Returns a line for each peer: medians, with the least and the most in brackets."""
    rows = [HEADS]
    for machine, report in reports.items():
        works: dict[str, Any] = report["works"]
        for name in sorted(
            works, key=lambda name: (list(WORKS).index(name) if name in WORKS else len(WORKS), name)
        ):
            rows += [(machine, name, *cells) for cells in lines(works[name])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def lines(work: dict[str, Any]) -> list[tuple[str, ...]]:
    if work["status"] != "run":
        return [(f"not run: {work['lack']}", "", "", "", "")]
    ours, peers = (
        work["measured"]["ours"],
        {name: entry for name, entry in work["measured"].items() if name != "ours"},
    )
    if ours["status"] != "run":
        return [(f"not run: {ours['lack']}", "", "", "", "")]
    mine, fraction = spread(ours["seconds"]), f"{ours['fraction_of_limit']:.2f}"
    found = [
        (
            mine,
            f"{name} {spread(entry['seconds'])}",
            spread(entry["ratio"]),
            spread(entry["memory_ratio"]),
            fraction,
        )
        if entry["status"] == "run"
        else (mine, f"{name}: {entry['lack']}", "", "", fraction)
        for name, entry in peers.items()
    ]
    return found or [(mine, "", "", "", fraction)]


def spread(values: dict[str, float]) -> str:
    return f"{values['median']:.3g} ({values['min']:.3g} to {values['max']:.3g})"
