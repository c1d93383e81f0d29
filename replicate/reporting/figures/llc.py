"""λ̂ against the number of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from replicate.reporting.figures.style import FAINT, LOOKS, WIDTH, known, panel, style
from replicate.study.published import Family
from replicate.study.records import Estimate


def llc(families: dict[str, list[Estimate]], published: Mapping[str, Family], study: str) -> Figure:
    """λ̂ against parameters: this study's estimates on the left, the published ones in the same
    shape on the right.

    A strong line joins the means over shuffles, with their 95 % intervals (Student); a faint one
    joins λ̂ of one shuffle. Crosses: the averages that were reported, which leave out shuffles with
    λ̂ ≤ 0.
    """
    with style():
        figure, (ours, theirs) = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained")
        for (family, rows), look in zip(families.items(), LOOKS, strict=False):
            run = [
                row
                for row in rows
                if row.status == "run" and row.llc is not None and row.parameters is not None
            ]
            if run:
                size = [row.parameters or 0 for row in run]
                shuffles = np.array([known(row.groups) for row in run])
                half = np.array(
                    [
                        (0, 0)
                        if row.interval is None
                        else np.abs(np.subtract(row.interval, row.llc or 0))
                        for row in run
                    ]
                )
                against_size(
                    ours,
                    family,
                    size,
                    np.array([row.llc or 0 for row in run]),
                    half.T,
                    shuffles,
                    look,
                )
        if not ours.lines:
            ours.text(
                0.5, 0.5, "not run", ha="center", va="center", transform=ours.transAxes, color="0.4"
            )
        for (family, figures), look in zip(published.items(), LOOKS, strict=False):
            rows = list(figures.models.values())
            size, means = [row.parameters for row in rows], np.array([row.mean for row in rows])
            half = np.array(
                [stats.t.ppf(0.975, len(row.mean) - 1) * stats.sem(row.mean) for row in rows]
            )
            against_size(
                theirs, family, size, means.mean(axis=1), np.array([half, half]), means, look
            )
            theirs.plot(
                size, [row.reported for row in rows], "x", color="0.2", markersize=4.5, zorder=3
            )
        theirs.plot([], [], "x", color="0.2", markersize=4.5, label="as reported: λ̂ > 0 alone")
        panel(ours, "a", f"{study} study")
        panel(theirs, "b", "published in 2023")
        for axes in (ours, theirs):
            axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
            axes.set_xlabel("parameters")
            if axes.lines[1:]:
                axes.set_xscale("log")
                axes.legend(loc="upper left")
        ours.set_ylabel("local learning coefficient λ̂")
        return figure


def against_size(
    axes: Axes,
    name: str,
    size: Sequence[int],
    llc: np.ndarray,
    half: np.ndarray,
    shuffles_MxG: np.ndarray,
    look: tuple[str, str],
) -> None:
    colour, marker = look
    for values in shuffles_MxG.T:
        axes.plot(
            size,
            values,
            color=colour,
            alpha=0.25,
            linewidth=0.7,
            marker=marker,
            markersize=2.5,
            markerfacecolor="none",
        )
    axes.errorbar(
        size, llc, yerr=half, color=colour, marker=marker, markersize=4, capsize=2.5, label=name
    )
