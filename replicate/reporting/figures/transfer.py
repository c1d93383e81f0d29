"""Does the step size chosen on one model carry over to every size?"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from replicate.reporting.figures.style import (
    DASHES,
    FAINT,
    LOOKS,
    WIDTH,
    known,
    not_run,
    panel,
    style,
)
from replicate.study.records import Transferred


def transfer(rows: list[Transferred], limit: float) -> Figure:
    """λ̂ at each step size over λ̂ at the chosen one, with the 95 % interval over the paired
    shuffles; and R-hat beside its limit.
    """
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.2), layout="constrained")
        run = [row for row in rows if row.status == "run"]
        if not run:
            not_run(left, "λ̂ by step size")
            not_run(right, "R-hat by step size")
            return figure
        models = list(dict.fromkeys(row.model for row in run))
        for place, ((colour, marker), model) in enumerate(zip(LOOKS, models, strict=False)):
            aside = 1.05 ** (
                place - (len(models) - 1) / 2
            )  # so that intervals do not hide each other
            mine = {row.factor: row for row in run if row.model == model}
            factors = sorted(mine)
            ratios = np.array([known(mine[f].groups) / known(mine[1.0].groups) for f in factors])
            error = stats.t.ppf(0.975, ratios.shape[1] - 1) * stats.sem(ratios, axis=1)
            look = {"color": colour, "marker": marker, "markersize": 4}
            left.errorbar(
                [aside * f for f in factors],
                ratios.mean(axis=1),
                yerr=error,
                capsize=2.5,
                label=model,
                **look,
            )
            right.plot(factors, known([mine[f].rhat for f in factors]), **look)
        left.axhline(1, color=FAINT, linewidth=0.6, zorder=0)
        right.axhline(limit, color="0.2", linewidth=0.8, linestyle=DASHES)
        for axes, label in ((left, "λ̂ / λ̂ at × 1"), (right, "split R-hat (dashed: limit)")):
            axes.set_xscale("log")
            axes.set_xticks(
                sorted({row.factor for row in run}),
                [f"× {f:.2g}" for f in sorted({row.factor for row in run})],
            )
            axes.minorticks_off()
            axes.set_xlabel("step size, of the chosen one")
            axes.set_ylabel(label)
        left.legend(loc="upper center")
        panel(left, "a", "λ̂")
        panel(right, "b", "mixing of the chains")
        return figure
