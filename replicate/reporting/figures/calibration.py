"""Draws estimated against true λ, for models whose λ is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from replicate.reporting.figures.style import DASHED, FAINT, LOOKS, panels, style, title
from replicate.study.records import Calibrated, NegativeControl


@style()
def calibration(rows: list[Calibrated], controls: list[NegativeControl]) -> Figure:
    """Draws estimated against true λ on the left, and their ratio on the right. The negative
    controls are below the targets there. Intervals have 95 % confidence.
    """
    figure, (left, right) = panels(2, 0.6 + 0.118 * (len(rows) + len(controls)))
    kinds = list(dict.fromkeys(row.kind for row in rows))
    for place, row in enumerate(rows):
        colour, marker = LOOKS[kinds.index(row.kind) % len(LOOKS)]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3.5}
        look |= {"capsize": 2, "linewidth": 0.8, "linestyle": "none"}
        label = row.kind if row.kind not in left.get_legend_handles_labels()[1] else None
        truth = row.true_llc if row.exact is None or row.ladder else row.exact
        half = np.abs(np.subtract(row.interval, row.llc))[:, None]
        left.errorbar(row.true_llc, row.llc * row.true_llc / truth, yerr=half, label=label, **look)
        right.errorbar(row.llc / truth, place, xerr=half / truth, **look)
    for place, row in enumerate(controls, len(rows)):
        error = 1.96 * row.standard_error / row.expected
        cross: dict[str, Any] = {"color": "0.2", "marker": "x", "markersize": 4}
        right.errorbar(row.llc / row.expected, place, xerr=error, **cross)
    ends = [min(row.true_llc for row in rows) / 2, max(row.true_llc for row in rows) * 2]
    left.plot(ends, ends, **DASHED)
    left.set(xscale="log", yscale="log", xlabel="true λ", ylabel="estimated λ̂")
    left.legend(loc="lower right")
    title(left, "a", "λ̂ against λ")
    title(right, "b", "their ratio")
    right.axvspan(0.95, 1.05, color="0.93", zorder=0)
    right.axvline(1, **FAINT)
    labels = [*(row.target for row in rows), *(f"control: {row.control}" for row in controls)]
    right.set_yticks(range(len(labels)), labels, fontsize=5.8)
    right.invert_yaxis()
    right.set_xlabel("λ̂ / λ (grey: within 5 %)")
    return figure
