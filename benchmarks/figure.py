"""The figure `steps`: seconds per step of a chain against parameters."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.peers import NAMES
from benchmarks.results import Report
from replicate.reporting.figures.style import LOOKS, WIDTH, style


@style()
def steps(reports: dict[str, Report]) -> Figure:
    """Draws a panel for each machine: ours, each peer, and the least that the machine allows.

    Bars reach from the least to the most of all rounds. Machines whose works are all of one size
    are left out, unless there are no others.
    """
    run = {name: report["works"] for name, report in reports.items() if report["works"]}
    several = {
        name: works
        for name, works in run.items()
        if len({work["parameters"] for work in works.values()}) > 1
    }
    chosen = several or run
    figure, (panels,) = plt.subplots(
        1, len(chosen), figsize=(WIDTH, 2.9), layout="constrained", sharey=True, squeeze=False
    )
    for axes, (machine, works) in zip(panels, chosen.items(), strict=True):
        panel(axes, sorted(works.items(), key=lambda item: item[1]["parameters"]))
        axes.set_title(machine)
    panels[0].set_ylabel("seconds per step of a chain")
    panels[0].legend(loc="upper left")
    return figure


def panel(axes: Axes, works: list[tuple[str, dict[str, Any]]]) -> None:
    """Draws the works of one machine."""
    run = [(name, work) for name, work in works if work["status"] == "run"]
    least = [(work["parameters"], work["limit"]) for _, work in run]
    axes.plot(*zip(*least, strict=True), color="0.3", linestyle=":", marker=".", label="limit")
    for (name, _), place in zip(run, least, strict=True):
        shift = {"xytext": (4, -6), "textcoords": "offset points"}
        axes.annotate(name, place, **shift, fontsize=6, color="0.3")
    for name, (colour, marker) in zip(("ours", *NAMES), LOOKS, strict=False):
        found = [
            (work["parameters"], work["measured"][name]["seconds"])
            for _, work in run
            if work["measured"].get(name, {}).get("status") == "run"
        ]
        if found:
            axes.errorbar(
                [size for size, _ in found],
                [value["median"] for _, value in found],
                yerr=[
                    [value["median"] - value["min"] for _, value in found],
                    [value["max"] - value["median"] for _, value in found],
                ],
                color=colour,
                marker=marker,
                markersize=4,
                capsize=2.5,
                label=name,
            )
    axes.set(xscale="log", yscale="log", xlabel="parameters")
    axes.margins(x=0.12, y=0.12)
