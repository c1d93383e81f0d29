"""The flaw of the original protocol, to be seen in five seconds: λ̂ was the luck of one
minibatch.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.reporting.figures.style import (
    DASHES,
    FAINT,
    LOOKS,
    WIDTH,
    known,
    not_run,
    panel,
    style,
)
from replicate.study.published import Family
from replicate.study.records import Reexamined


def original(rows: list[Reexamined], published: Family, study: str) -> Figure:
    """Left: the published λ̂ of each shuffle, a line a model. Middle: the same protocol on this
    study's models, against what one minibatch's luck at w* predicts. Right: how the spread over
    shuffles shrinks with the number of baseline minibatches.
    """
    with style():
        figure, (theirs, ours, shrinking) = plt.subplots(
            1, 3, figsize=(WIDTH, 2.35), layout="constrained"
        )
        for (colour, marker), (model, values) in zip(LOOKS, published.models.items(), strict=False):
            theirs.errorbar(
                range(len(values.mean)),
                values.mean,
                values.deviation,
                color=colour,
                marker=marker,
                capsize=1.5,
                label=model,
            )
        theirs.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
        theirs.set_xticks(range(len(published.llc_GxM)))
        theirs.set_xlabel("shuffle")
        theirs.set_ylabel("λ̂ ± deviation across chains")
        panel(theirs, "a", "as published, by shuffle")
        theirs.legend(loc="lower right")
        run = [row for row in rows if row.status == "run"]
        if not run:
            not_run(ours, f"{study} study")
            not_run(shrinking, f"{study} study")
            return figure
        against_luck(ours, run)
        panel(ours, "b", f"the same protocol, {study}")
        spreads(shrinking, run)
        return figure


def against_luck(axes: Axes, rows: list[Reexamined]) -> None:
    """A point a shuffle and model; on the diagonal λ̂ is nothing but luck."""
    for (colour, marker), row in zip(LOOKS, rows, strict=False):
        axes.plot(known(row.luck), known(row.groups), marker, color=colour, label=row.model)
    ends = np.array(axes.get_xlim())
    axes.plot(ends, ends, color="0.2", linewidth=0.8, linestyle=DASHES, zorder=0)
    shares = known([row.r_squared for row in rows])
    low, high = f"{np.nanmin(shares):.2f}", f"{np.nanmax(shares):.2f}"
    axes.annotate(
        f"R² {low}" if low == high else f"R² {low} to {high}",
        (0.04, 0.94),
        xycoords="axes fraction",
        va="top",
    )
    axes.set_xlabel("luck of the baseline minibatch")
    axes.set_ylabel("λ̂ by the 2023 protocol")
    axes.legend(loc="lower right")


def spreads(axes: Axes, rows: list[Reexamined]) -> None:
    """Falling with the root of the number of minibatches; at the end `controlled`, whose baseline
    is exact, in the same unit.
    """
    batches = np.array(rows[0].batches)
    for (colour, marker), row in zip(LOOKS, rows, strict=False):
        axes.plot(batches, known(row.spread), color=colour, marker=marker)
        exact = known(row.controlled).std(ddof=1) * (row.factor or np.nan) / (row.nbeta or np.nan)
        axes.plot([4 * batches[-1]], [exact], color=colour, marker=marker, markerfacecolor="none")
    first = max(row.spread[0] or 0 for row in rows)
    axes.plot(batches, 1.3 * first / np.sqrt(batches), color="0.2", linewidth=0.8, linestyle=DASHES)
    axes.annotate(
        "1/√k",
        (batches[2], 1.3 * first / np.sqrt(batches[2])),
        xytext=(3, 3),
        textcoords="offset points",
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([*batches, 4 * batches[-1]], [*map(str, batches), "all"])
    axes.set_xlabel("baseline minibatches k")
    axes.set_ylabel("standard deviation of λ̂")
    panel(axes, "c", "spread over shuffles")
