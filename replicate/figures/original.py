"""The flaw of the original protocol, to be seen in five seconds: λ̂ was the luck of one minibatch."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.figures.style import LOOKS, WIDTH, known, not_run, style
from replicate.published import Family
from replicate.results import Reexamined


def original(rows: list[Reexamined], published: Family, study: str) -> Figure:
    """Left: the published λ̂ of each shuffle, a line a model. Middle: the same protocol on this study's models, against what one
    minibatch's luck at w* predicts. Right: how the spread over shuffles shrinks with the number of baseline minibatches.
    """
    with style():
        figure, (theirs, ours, shrinking) = plt.subplots(1, 3, figsize=(WIDTH, 2.5), layout="constrained")
        for (colour, marker), (model, values) in zip(LOOKS, published.models.items(), strict=False):
            theirs.plot(range(len(values.mean)), values.mean, color=colour, marker=marker, markersize=3.5, label=model)
        theirs.axhline(0, color="0.6", linewidth=0.6, zorder=0)
        theirs.set_xticks(range(len(published.llc_GxM)))
        theirs.set_xlabel("shuffle")
        theirs.set_ylabel("λ̂ as published")
        theirs.set_title("2023: sizes turn together")
        theirs.legend(fontsize=5.5, loc="lower right")
        run = [row for row in rows if row.status == "run"]
        if not run:
            not_run(ours, f"{study} study")
            not_run(shrinking, f"{study} study")
            return figure
        against_luck(ours, run)
        ours.set_title(f"{study}: luck explains it")
        spreads(shrinking, run)
        return figure


def against_luck(axes: Axes, rows: list[Reexamined]) -> None:
    """A point a shuffle and model; on the diagonal λ̂ is nothing but luck."""
    for (colour, marker), row in zip(LOOKS, rows, strict=False):
        axes.plot(known(row.luck), known(row.groups), marker, color=colour, markersize=3.5, label=row.model)
    ends = np.array(axes.get_xlim())
    axes.plot(ends, ends, color="0.2", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    shares = known([row.r_squared for row in rows])
    low, high = np.nanmin(shares), np.nanmax(shares)
    text = f"R² {low:.2f}" if high - low < 0.005 else f"R² {low:.2f} to {high:.2f}"
    axes.annotate(text, (0.04, 0.94), xycoords="axes fraction", va="top")
    axes.set_xlabel("luck of the baseline minibatch")
    axes.set_ylabel("λ̂ by the 2023 protocol")
    axes.legend(fontsize=5.5, loc="lower right")


def spreads(axes: Axes, rows: list[Reexamined]) -> None:
    """Falling with the root of the number of minibatches; at the end `controlled`, whose baseline is exact, in the same unit."""
    batches = np.array(rows[0].batches)
    for (colour, marker), row in zip(LOOKS, rows, strict=False):
        axes.plot(batches, known(row.spread), color=colour, marker=marker, markersize=3.5)
        exact = known(row.controlled).std(ddof=1) * (row.factor or np.nan) / (row.nbeta or np.nan)
        axes.plot([4 * batches[-1]], [exact], color=colour, marker=marker, markersize=3.5, markerfacecolor="none")
    first = max(row.spread[0] or 0 for row in rows)
    axes.plot(batches, 1.3 * first / np.sqrt(batches), color="0.2", linewidth=0.8, linestyle=(0, (4, 2)))
    axes.annotate("1/√k", (batches[2], 1.3 * first / np.sqrt(batches[2])), xytext=(3, 3), textcoords="offset points")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([*batches, 4 * batches[-1]], [*map(str, batches), "all"], fontsize=7)
    axes.set_xlabel("baseline minibatches k")
    axes.set_ylabel("spread of λ̂ over shuffles")
    axes.set_title("more, less spread")
