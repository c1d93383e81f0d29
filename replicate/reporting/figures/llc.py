"""Draws λ̂ against the number of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from replicate.reporting.figures.style import FAINT, LOOKS, known, not_run, panels, style, title
from replicate.reporting.results import Study
from replicate.study.published import Family
from replicate.study.records import Estimate

Shuffles = Sequence[Sequence[float | None]]  # λ̂ (model, shuffle)


@style()
def llc(study: Study, published: dict[str, Family]) -> Figure:
    """Draws the study's λ̂ on the left and the published ones on the right.

    A strong line joins the means over shuffles, with their 95 % intervals (Student). Each faint
    line joins the λ̂ of one shuffle. Of sizes that were trained several times, each training has a
    mark, and the line joins the means over trainings. Crosses mark the averages that were reported,
    which leave out shuffles with λ̂ ≤ 0.
    """
    figure, (ours, theirs) = panels(2, 2.6)
    for family, look in zip(study.plan.families, LOOKS, strict=False):
        rows = [row for row in study.default.values() if row.family == family.name]
        _ours(ours, family.name, [row for row in rows if row.llc is not None], look)
    for (name, figures), look in zip(published.items(), LOOKS, strict=False):
        _theirs(theirs, name, figures, look)
    theirs.plot([], [], "x", color="0.2", markersize=4.5, label="as reported: λ̂ > 0 alone")
    for axes in (ours, theirs):
        if axes.lines:
            axes.axhline(0, **FAINT)
            axes.set(xscale="log", xlabel="parameters")
            axes.legend(loc="best")
    if not ours.lines:
        not_run(ours, f"{study.name} study")
    title(ours, "a", f"{study.name} study")
    title(theirs, "b", "published in 2023")
    ours.set_ylabel("local learning coefficient λ̂")
    return figure


def _ours(axes: Axes, family: str, rows: list[Estimate], look: tuple[str, str]) -> None:
    if not rows:
        return
    means = np.array([row.llc for row in rows], float)
    ends = np.array([row.interval or (row.llc, row.llc) for row in rows], float)
    sizes, half = [row.parameters for row in rows], np.abs(ends.T - means)
    each = {size: means[np.array(sizes) == size].mean() for size in sorted(set(sizes))}
    if len(each) == len(rows):
        _shuffles(axes, sizes, [row.shuffles for row in rows], look)
        _means(axes, family, sizes, means, half, look)
    else:
        _means(axes, family, sizes, means, half, look, linestyle="none", alpha=0.6)
        axes.plot([*each], [*each.values()], color=look[0])


def _theirs(axes: Axes, family: str, figures: Family, look: tuple[str, str]) -> None:
    rows = list(figures.models.values())
    sizes, means = [row.parameters for row in rows], np.array([row.mean for row in rows])
    half = stats.t.ppf(0.975, means.shape[1] - 1) * stats.sem(means, axis=1)
    _shuffles(axes, sizes, [row.mean for row in rows], look)
    _means(axes, family, sizes, means.mean(axis=1), half, look)
    axes.plot(sizes, [row.reported for row in rows], "x", color="0.2", markersize=4.5, zorder=3)


def _shuffles(axes: Axes, sizes: list[int], llc_MxS: Shuffles, look: tuple[str, str]) -> None:
    colour, marker = look
    faint = {"alpha": 0.25, "linewidth": 0.7, "markersize": 2.5, "markerfacecolor": "none"}
    for shuffle in zip(*llc_MxS, strict=True):
        axes.plot(sizes, known(shuffle), color=colour, marker=marker, **faint)


def _means(
    axes: Axes,
    name: str,
    sizes: list[int],
    means: np.ndarray,
    half: np.ndarray,
    look: tuple[str, str],
    **other: Any,
) -> None:
    colour, marker = look
    strong = {"color": colour, "marker": marker, "markersize": 4, "capsize": 2.5} | other
    axes.errorbar(sizes, means, yerr=half, label=name, **strong)
