"""Draws λ̂ along the localisation and the temperature, with what the Hessian tells."""

from __future__ import annotations

from typing import Any

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
from replicate.study.records import CurvePoint

STYLES = ("solid", "dotted", "dashdot")  # lines differ by colour, mark and stroke
UNSURE = ("not in equilibrium", "escaped")  # regimes in which λ̂ is that of no posterior


@style()
def curve(rows: list[CurvePoint]) -> Figure:
    """Draws λ̂ of each model, in a panel of its own, against α = γ/nβ with a line for each nβ.

    The harmonic part ½·tr[H(H + α)⁻¹] is dashed. A mark is hollow where the chains are not in
    equilibrium or have escaped. A λ̂ that is not above 0 has no place on the logarithmic scale.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    figure, panel = panels(max(2, len(models)), 2.4)
    if not rows:
        not_run(panel[0], "λ̂ as a curve")
    for axes, model, letter in zip(panel, models, "abcdefgh", strict=False):
        _draw(axes, [row for row in rows if row.model == model])
        title(axes, letter, model)
    for axes in panel[len(models) :]:
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, rows: list[CurvePoint]) -> None:
    for i, nbeta in enumerate(dict.fromkeys(row.nbeta for row in rows)):
        line = sorted(
            (row for row in rows if row.nbeta == nbeta and (row.llc or 0) > 0),
            key=lambda row: row.localization,
        )
        colour, marker = LOOKS[i % len(LOOKS)]
        look: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 2.5}
        alphas, llc = [row.localization / nbeta for row in line], known([row.llc for row in line])
        ends = [row.interval or (row.llc, row.llc) for row in line]
        half = [[x - low for x, (low, _) in zip(llc, ends, strict=True)] for _ in range(2)]
        stroke = STYLES[i % len(STYLES)]
        axes.errorbar(alphas, llc, half, linestyle=stroke, label=f"nβ = {nbeta:g}", **look)
        for alpha, value, row in zip(alphas, llc, line, strict=True):
            if row.regime in UNSURE:
                axes.plot(alpha, value, marker, color=colour, markerfacecolor="white", zorder=3)
    harmonic = sorted(
        {row.localization / row.nbeta: row.harmonic for row in rows if row.harmonic}.items()
    )
    if harmonic:
        alphas, values = zip(*harmonic, strict=True)
        axes.plot(alphas, values, label="harmonic part", **DASHED)
    above = bool(harmonic) or any((row.llc or 0) > 0 for row in rows)
    axes.set(xscale="log", xlabel="α = γ/nβ (nats)", ylabel="λ̂")
    axes.set_yscale("log" if above else "linear")
    for axis in (axes.xaxis, axes.yaxis)[: 2 if above else 1]:
        ticks(axis)
    axes.legend()
