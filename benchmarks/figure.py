"""Seconds per chain-step against parameters."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.peers import NAMES
from benchmarks.results import Report
from replicate.reporting.figures.style import LOOKS, WIDTH, style


def steps(reports: dict[str, Report]) -> Figure:
    """A panel a machine, unless its works are all of one size: ours, each peer, and the least that
    the machine allows. Bars: the least and the most of all rounds.
    """
    several = {
        name: report
        for name, report in reports.items()
        if len({work["parameters"] for work in report["works"].values()}) > 1
    }
    reports = several or {name: report for name, report in reports.items() if report["works"]}
    with style():
        figure, panels = plt.subplots(
            1, len(reports), figsize=(WIDTH, 2.9), layout="constrained", sharey=True, squeeze=False
        )
        for axes, (machine, report) in zip(panels[0], reports.items(), strict=True):
            panel(axes, sorted(report["works"].items(), key=lambda item: item[1]["parameters"]))
            axes.set_title(machine)
        panels[0][0].set_ylabel("seconds per step of a chain")
        panels[0][0].legend(loc="upper left")
        return figure


def panel(axes: Axes, works: list[tuple[str, dict[str, Any]]]) -> None:
    run = [(name, work) for name, work in works if work["status"] == "run"]
    axes.plot(
        [work["parameters"] for _, work in run],
        [work["limit"] for _, work in run],
        color="0.3",
        linestyle=":",
        marker=".",
        label="limit",
    )
    for name, work in run:
        axes.annotate(
            name,
            (work["parameters"], work["limit"]),
            (4, -6),
            textcoords="offset points",
            fontsize=6,
            color="0.3",
        )
    for name, (colour, marker) in zip(("ours", *NAMES), LOOKS, strict=False):
        found = [
            (work["parameters"], work["measured"][name]["seconds"])
            for _, work in run
            if has(work, name)
        ]
        if not found:
            continue
        sizes, seconds = [size for size, _ in found], [value["median"] for _, value in found]
        bars = [
            [value["median"] - value["min"] for _, value in found],
            [value["max"] - value["median"] for _, value in found],
        ]
        axes.errorbar(
            sizes,
            seconds,
            yerr=bars,
            color=colour,
            marker=marker,
            markersize=4,
            capsize=2.5,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("parameters")


def has(work: dict[str, Any], name: str) -> bool:
    return work["measured"].get(name, {}).get("status") == "run"
