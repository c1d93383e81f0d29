"""Draws whether the step size that was chosen on one model also suits the other sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from replicate.reporting.figures.style import (
    DASHED,
    FAINT,
    LOOKS,
    known,
    not_run,
    panels,
    style,
    title,
)
from replicate.reporting.formatting import number
from replicate.study.records import Transferred


@style()
def transfer(rows: list[Transferred], limit: float) -> Figure:
    """Draws the ratio of λ̂ at each step size to λ̂ at the chosen one, with its 95 % interval over
    paired shuffles, and R-hat with its `limit`.
    """
    figure, (left, right) = panels(2, 2.2)
    if not rows:
        not_run(left, "λ̂ by step size")
        not_run(right, "R-hat by step size")
        return figure
    models = list(dict.fromkeys(row.model for row in rows))
    for place, ((colour, marker), model) in enumerate(zip(LOOKS, models, strict=False)):
        mine = {row.factor: row for row in rows if row.model == model}
        factors = np.array(sorted(mine))
        apart = 1.05 ** (place - (len(models) - 1) / 2)  # intervals should not hide each other
        ratios = [known(mine[f].shuffles) / known(mine[1.0].shuffles) for f in factors]
        error = stats.t.ppf(0.975, len(ratios[0]) - 1) * stats.sem(ratios, axis=1)
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4}
        mean = np.mean(ratios, axis=1)
        left.errorbar(apart * factors, mean, yerr=error, capsize=2.5, label=model, **look)
        right.plot(factors, known([mine[f].rhat for f in factors]), **look)
    left.axhline(1, **FAINT)
    right.axhline(limit, **DASHED)
    factors = sorted({row.factor for row in rows})
    for axes, label in ((left, "λ̂ / λ̂ at × 1"), (right, "split R-hat (dashed: limit)")):
        axes.set_xscale("log")
        axes.set_xticks(factors, [f"× {number(factor, 2)}" for factor in factors])
        axes.minorticks_off()
        axes.set(xlabel="step size, of the chosen one", ylabel=label)
    left.legend(loc="upper center")
    title(left, "a", "λ̂")
    title(right, "b", "mixing of the chains")
    return figure
