"""What loading in fewer bits does to w* and to λ̂."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from replicate.reporting.figures.style import FAINT, LOOKS, WIDTH, known, not_run, panel, style
from replicate.study.records import Quantised

SHOWN = {"nf4": "NF4", "dequantised": "NF4 →\nbfloat16", "dequantised-float32": "NF4 →\nfloat32"}


def quantisation(rows: list[Quantised], level: float) -> Figure:
    """By weight format and model: rise of the loss at w* against float32, and λ̂ over float32's
    with the same parameters moving, with intervals of 1 − `level`; filled marks: restricted to what
    NF4 leaves unquantised; open marks: all parameters.
    """
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.3), layout="constrained")
        run = [row for row in rows if row.status == "run" and row.rise is not None]
        if not run:
            not_run(left, "loss at w* by weight format")
            not_run(right, "λ̂ by weight format")
            return figure
        kinds = list(
            dict.fromkeys((row.moved, row.weights) for row in run if row.weights != "float32")
        )
        models = list(dict.fromkeys(row.model for row in run))
        for j, (model, (colour, marker)) in enumerate(zip(models, LOOKS, strict=False)):
            for i, kind in enumerate(kinds):
                row = next(
                    (r for r in run if r.model == model and (r.moved, r.weights) == kind), None
                )
                if row is None:
                    continue
                at = i + 0.2 * (j - (len(models) - 1) / 2)
                look = {
                    "color": colour,
                    "marker": marker,
                    "markersize": 4,
                    "capsize": 2,
                    "linestyle": "none",
                }
                look |= {"markerfacecolor": colour if row.moved == "restricted" else "white"}
                label = model if i == 0 else None
                left.errorbar(
                    at,
                    row.rise or 0.0,
                    stats.norm.ppf(1 - level / 2) * (row.rise_error or 0.0),
                    label=label,
                    **look,
                )
                changes = known(row.changes)
                half = (
                    stats.t.ppf(1 - level / 2, len(changes) - 1)
                    * changes.std(ddof=1)
                    / len(changes) ** 0.5
                )
                right.errorbar(at, 1 + changes.mean(), half, **look)
        for axes, label, null in (
            (left, "rise of the loss at w* (nats)", 0.0),
            (right, "λ̂ over float32's", 1.0),
        ):
            finish(
                axes,
                label,
                null,
                [f"{SHOWN.get(weights, weights)}\n{moved}" for moved, weights in kinds],
            )
        left.legend()
        panel(left, "a", "loss at w*")
        panel(right, "b", "λ̂")
        return figure


def finish(axes: Axes, label: str, null: float, names: list[str]) -> None:
    axes.axhline(null, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_xticks(np.arange(len(names)), names, fontsize=5.5)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel(label)
