"""Draws λ̂ of every training against size, and over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.reporting.figures.style import (
    DASHED,
    LOOKS,
    known,
    not_run,
    panels,
    style,
    ticks,
    title,
)
from replicate.study.claims.trainings import Table, tables
from replicate.study.records import Setting
from replicate.study.rules import Rules

LETTERS = "abcdefgh"


@style()
def sizes(rows: Sequence[Setting], family: str, rules: Rules) -> Figure:
    """Draws λ̂ of each training against the number of parameters, in a panel for each setting.

    A line joins the geometric means over trainings. The harmonic part ½·tr[H(H + α)⁻¹] is dashed.
    Settings with one γ come first, and then those with γ ∝ d, which have one radius.
    """
    found = [table for table in tables(rows, family, rules)[0] if table.whole]
    figure, panel = panels(max(2, len(found)), 2.3)
    if not found:
        not_run(panel[0], "λ̂ of trainings")
    for axes, table, letter in zip(panel, found, LETTERS, strict=False):
        _against_size(axes, table)
        title(axes, letter, f"(nβ, γ) = {table.name.replace('γ = ', '')}")
    for axes in panel[len(found) :]:
        axes.set_axis_off()
    panel[0].set_ylabel("λ̂")
    return figure


def _against_size(axes: Axes, table: Table) -> None:
    colour, marker = LOOKS[0]
    dots = {"color": colour, "alpha": 0.6, "markerfacecolor": "none"}
    axes.plot(
        [r.parameters for r in table.rows],
        known([r.llc for r in table.rows]),
        marker,
        label="trainings",
        **dots,
    )
    d, means, harmonic = [], [], []
    for size in table.sizes:
        own = [row for row in table.rows if row.size == size]
        d.append(own[0].parameters)
        means.append(np.exp(np.mean(np.log(known([row.llc for row in own])))))
        parts = [row.harmonic[0] for row in own if row.harmonic is not None]
        harmonic.append(np.mean(parts) if parts else np.nan)
    axes.plot(d, means, color=colour, label="mean")
    axes.plot(d, harmonic, label="harmonic part", **DASHED)
    axes.set(xscale="log", yscale="log", xlabel="parameters d")
    ticks(axes.yaxis)
    axes.legend()


@style()
def checkpoints(rows: Sequence[Setting], family: str) -> Figure:
    """Draws λ̂ and the loss over training, for each model whose checkpoints were measured.

    Of several settings the first is drawn. The bars are 95 % intervals. A λ̂ that is not above 0
    has no place on the logarithmic scale.
    """
    saved = [row for row in rows if row.family == family and row.step is not None]
    figure, (left, right) = panels(2, 2.4)
    if not saved:
        not_run(left, "λ̂ over training")
        right.set_axis_off()
        return figure
    first = saved[0].nbeta, saved[0].localization, saved[0].loss
    saved = [row for row in saved if (row.nbeta, row.localization, row.loss) == first]
    for model, (colour, marker) in zip(dict.fromkeys(r.course for r in saved), LOOKS, strict=False):
        line = sorted((r for r in saved if r.course == model), key=lambda row: row.step or 0)
        look: dict[str, Any] = {"color": colour, "marker": marker}
        above = [row for row in line if (row.llc or 0) > 0]
        values = known([row.llc for row in above])
        ends = [row.interval or (row.llc, row.llc) for row in above]
        half = [[x - low for x, (low, _) in zip(values, ends, strict=True)] for _ in range(2)]
        left.errorbar([r.step or 0 for r in above], values, half, capsize=2, label=model, **look)
        right.plot([r.step or 0 for r in line], known([r.baseline_loss for r in line]), **look)
    setting = f"(nβ, γ) = ({saved[0].nbeta:g}, {saved[0].localization:g})"
    for axes, letter, name, text, numbers in (
        (left, "a", "λ̂", setting, [row.llc for row in saved]),
        (right, "b", "nats", "loss at w", [row.baseline_loss for row in saved]),
    ):
        title(axes, letter, text)
        if all((number or 0) <= 0 for number in numbers):
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"no {name} above 0", ha="center", transform=axes.transAxes)
            continue
        axes.set(xscale="log", yscale="log", xlabel="training steps", ylabel=name)
        ticks(axes.yaxis)
    left.legend()
    return figure
