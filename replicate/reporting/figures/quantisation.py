"""Draws how loading in fewer bits changes the loss at w* and λ̂."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from scipy import stats

from replicate.reporting.figures.style import FAINT, LOOKS, known, not_run, panels, style, title
from replicate.study.records import Quantised

SHOWN = {"nf4": "NF4", "dequantised": "NF4 →\nbfloat16", "dequantised-float32": "NF4 →\nfloat32"}


@style()
def quantisation(rows: list[Quantised], level: float) -> Figure:
    """Draws, by weight format and model, the rise of the loss at w* from float32, and the ratio of
    λ̂ to that of float32 with the same parameters moving.

    Intervals have confidence 1 − `level`. Filled marks are chains that move only what NF4 leaves
    unquantised; open marks are chains that move all parameters.
    """
    figure, (left, right) = panels(2, 2.3)
    rows = [row for row in rows if row.rise is not None and row.weights != "float32"]
    if not rows:
        not_run(left, "loss at w* by weight format")
        not_run(right, "λ̂ by weight format")
        return figure
    kinds = list(dict.fromkeys((row.moved, row.weights) for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    for row in rows:
        j = models.index(row.model)
        colour, marker = LOOKS[j % len(LOOKS)]
        place = kinds.index((row.moved, row.weights)) + 0.2 * (j - (len(models) - 1) / 2)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "capsize": 2}
        look |= {"markerfacecolor": colour if row.moved == "restricted" else "white"}
        new = row.model not in left.get_legend_handles_labels()[1]
        error = stats.norm.ppf(1 - level / 2) * (row.rise_error or 0)
        label = row.model if new else None
        left.errorbar(place, row.rise or 0, error, label=label, linestyle="none", **look)
        changes = known(row.changes)
        error = stats.t.ppf(1 - level / 2, len(changes) - 1) * stats.sem(changes)
        right.errorbar(place, 1 + changes.mean(), error, **look)
    names = [f"{SHOWN.get(weights, weights)}\n{moved}" for moved, weights in kinds]
    for axes, null in ((left, 0), (right, 1)):
        axes.axhline(null, **FAINT)
        axes.set_xticks(range(len(names)), names, fontsize=5.5)
        axes.set_xlim(-0.5, len(names) - 0.5)
    left.set_ylabel("rise of the loss at w* (nats)")
    right.set_ylabel("λ̂ over float32's")
    left.legend()
    title(left, "a", "loss at w*")
    title(right, "b", "λ̂")
    return figure
