"""Models whose λ is known: true against estimated."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from replicate.reporting.figures.style import DASHES, FAINT, LOOKS, WIDTH, panel, style
from replicate.study.records import Calibrated, Control


def calibration(rows: list[Calibrated], controls: list[Control]) -> Figure:
    """Left: estimated against true λ, on logarithmic axes, with 95 % intervals. Right: their ratio
    by target; below, wrong samplers.
    """
    with style():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(WIDTH, 0.6 + 0.118 * (len(rows) + len(controls))), layout="constrained"
        )
        kinds = list(dict.fromkeys(row.kind for row in rows))
        for place, row in enumerate(rows):
            colour, marker = LOOKS[kinds.index(row.kind) % len(LOOKS)]
            half = np.abs(np.subtract(row.interval, row.llc))[:, None]
            label = row.kind if row.kind not in left.get_legend_handles_labels()[1] else None
            truth = row.true_llc if row.exact is None or row.ladder else row.exact
            shared = {
                "color": colour,
                "marker": marker,
                "markersize": 3.5,
                "capsize": 2,
                "linewidth": 0.8,
            }
            left.errorbar(
                [row.true_llc],
                [row.llc * row.true_llc / truth],
                yerr=half,
                linestyle="none",
                label=label,
                **shared,
            )
            right.errorbar(
                [row.llc / truth], [place], xerr=half / truth, linestyle="none", **shared
            )
        ends = [min(row.true_llc for row in rows) / 2, max(row.true_llc for row in rows) * 2]
        left.plot(ends, ends, color="0.2", linewidth=0.8, linestyle=DASHES, zorder=0)
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_xlabel("true λ")
        left.set_ylabel("estimated λ̂")
        left.legend(loc="lower right")
        panel(left, "a", "λ̂ against λ")
        panel(right, "b", "their ratio")
        for place, control in enumerate(controls, len(rows)):
            error = 1.96 * control.standard_error / control.expected
            right.errorbar(
                [control.llc / control.expected],
                [place],
                xerr=error,
                color="0.2",
                marker="x",
                markersize=4,
            )
        right.axvspan(0.95, 1.05, color="0.93", zorder=0)
        right.axvline(1, color=FAINT, linewidth=0.6, zorder=0)
        labels = [
            *(row.target for row in rows),
            *(f"mistake: {control.mistake}" for control in controls),
        ]
        right.set_yticks(range(len(labels)), labels, fontsize=5.8)
        right.invert_yaxis()
        right.set_xlabel("λ̂ / λ (grey: within 5 %)")
        return figure
