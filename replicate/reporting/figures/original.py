"""Draws the flaw of the 2023 protocol: its λ̂ is mostly the error of a one-minibatch baseline."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.reporting.figures.style import (
    DASHED,
    FAINT,
    LOOKS,
    known,
    not_run,
    panels,
    style,
    title,
)
from replicate.reporting.formatting import span
from replicate.reporting.results import Study
from replicate.study.published import Family
from replicate.study.records import OriginalProtocol


@style()
def original(study: Study, published: Family) -> Figure:
    """Draws three panels: the published λ̂ by shuffle, this study's λ̂ by the same protocol against
    the error of its baseline, and the spread over shuffles by the number of baseline minibatches.
    """
    figure, (theirs, ours, spread) = panels(3, 2.35)
    for (colour, marker), (model, values) in zip(LOOKS, published.models.items(), strict=False):
        look = {"color": colour, "marker": marker, "capsize": 1.5, "label": model}
        theirs.errorbar(range(len(values.mean)), values.mean, values.deviation, **look)
        theirs.set_xticks(range(len(values.mean)))
    theirs.axhline(0, **FAINT)
    theirs.set(xlabel="shuffle", ylabel="λ̂ ± deviation across chains")
    theirs.legend(loc="lower right")
    title(theirs, "a", "as published, by shuffle")
    rows = [row for row in study.original if row.family == study.plan.full.name]
    if not rows:
        not_run(ours, f"{study.name} study")
        not_run(spread, f"{study.name} study")
        return figure
    _against_baseline(ours, rows)
    title(ours, "b", f"the same protocol, {study.name}")
    _spread(spread, rows)
    title(spread, "c", "spread over shuffles")
    return figure


def _against_baseline(axes: Axes, rows: list[OriginalProtocol]) -> None:
    """Draws a point for each shuffle and model. On the diagonal, λ̂ equals the baseline's error."""
    for (colour, marker), row in zip(LOOKS, rows, strict=False):
        errors, found = known(row.baseline_errors), known(row.shuffles)
        axes.plot(errors, found, marker, color=colour, label=row.model)
    ends = np.array(axes.get_xlim())
    axes.plot(ends, ends, **DASHED)
    share = f"R² {span((row.r_squared for row in rows), 2)}"
    axes.annotate(share, (0.04, 0.94), xycoords="axes fraction", va="top")
    axes.set(xlabel="error of the baseline minibatch", ylabel="λ̂ by the 2023 protocol")
    axes.legend(loc="lower right")


def _spread(axes: Axes, rows: list[OriginalProtocol]) -> None:
    """Draws the spread against the number k of baseline minibatches, and a line ∝ 1/√k. Open marks
    at the right show `controlled`, whose baseline is exact, scaled to the factor n/ln n.
    """
    batches = np.array(rows[0].batches)
    for (colour, marker), row in zip(LOOKS, rows, strict=False):
        axes.plot(batches, known(row.spread), color=colour, marker=marker)
        exact = known(row.controlled).std(ddof=1) * row.factor / row.nbeta
        axes.plot(4 * batches[-1], exact, color=colour, marker=marker, markerfacecolor="none")
    line = 1.3 * max(row.spread[0] or 0 for row in rows) / np.sqrt(batches)
    axes.plot(batches, line, **DASHED)
    axes.annotate("1/√k", (batches[2], line[2]), xytext=(3, 3), textcoords="offset points")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([*batches, 4 * batches[-1]], [*map(str, batches), "all"])
    axes.set(xlabel="baseline minibatches k", ylabel="standard deviation of λ̂")
