"""Does the step size chosen on one model carry over to every size?"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from replicate.figures.style import LOOKS, WIDTH, known, not_run, style
from replicate.results import Transferred


def transfer(rows: list[Transferred], limit: float) -> Figure:
    """λ̂ at each step size over λ̂ at the chosen one, with the standard error of the paired shuffles; and R-hat beside its limit."""
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4), layout="constrained")
        run = [row for row in rows if row.status == "run"]
        if not run:
            not_run(left, "λ̂ by step size")
            not_run(right, "R-hat by step size")
            return figure
        for (colour, marker), model in zip(LOOKS, dict.fromkeys(row.model for row in run), strict=False):
            mine = {row.factor: row for row in run if row.model == model}
            factors = sorted(mine)
            ratios = np.array([known(mine[f].groups) / known(mine[1.0].groups) for f in factors])
            error = ratios.std(axis=1, ddof=1) / np.sqrt(ratios.shape[1])
            look = {"color": colour, "marker": marker, "markersize": 4}
            left.errorbar(factors, ratios.mean(axis=1), yerr=error, capsize=2.5, label=model, **look)
            right.plot(factors, known([mine[f].rhat for f in factors]), **look)
        left.axhline(1, color="0.6", linewidth=0.6, zorder=0)
        right.axhline(limit, color="0.2", linewidth=0.8, linestyle=(0, (4, 2)))
        for axes, label in ((left, "λ̂ / λ̂ at × 1"), (right, "split R-hat (dashed: limit)")):
            axes.set_xscale("log")
            axes.set_xticks(sorted({row.factor for row in run}), [f"× {f:.2g}" for f in sorted({row.factor for row in run})])
            axes.minorticks_off()
            axes.set_xlabel("step size, of the chosen one")
            axes.set_ylabel(label)
        left.legend(fontsize=6)
        return figure
