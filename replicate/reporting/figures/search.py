"""Draws the search for sampler settings: stability, efficiency and importance."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from replicate.reporting.figures.style import LOOKS, WIDTH, known, not_run, panels, style
from replicate.study.records import Importance, Trial


@style()
def search(trials: list[Trial], importances: list[Importance], family: str) -> Figure:
    """Draws the stability of λ̂ (mean over standard deviation across chains; a cross if unknown) at
    each setting of the grids, the effective draws per gradient of every trial, and the share of
    λ̂'s variance over the grid that each hyperparameter explains.
    """
    grids: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.sampler):
        if trial.proposed_by == "grid":
            grids.setdefault(trial.sampler, []).append(trial)
    if not grids:
        figure, (axes,) = panels(1, 1.2)
        not_run(axes, family)
        return figure
    heights = [0.18 * len({_conditions(trial) for trial in grid}) + 0.5 for grid in grids.values()]
    figure = plt.figure(figsize=(WIDTH, sum(heights) + 2.5), layout="constrained")
    places = figure.add_gridspec(len(grids) + 1, 2, height_ratios=[*heights, 2.2])
    largest = max((abs(trial.stability) for trial in trials if trial.stability), default=1.0)
    for line, grid in enumerate(grids.values()):
        _stability(figure.add_subplot(places[line, :]), grid, largest)
    _efficiency(figure.add_subplot(places[-1, 0]), trials)
    _importances(figure.add_subplot(places[-1, 1]), importances)
    return figure


def _conditions(trial: Trial) -> str:
    """Returns the label of a row: all hyperparameters but the step size."""
    box = "no box" if trial.bounding_box is None else f"box {trial.bounding_box:g}"
    if trial.sampler == "sgnht":
        return f"A {trial.diffusion:g}, {box}"
    return f"μ {trial.weight_decay:g}, γ {trial.localization:g}, {box}"


def _stability(axes: Axes, trials: list[Trial], largest: float) -> None:
    columns = sorted({trial.lr for trial in trials})
    rows = list(dict.fromkeys(_conditions(trial) for trial in trials))
    values = np.full((len(rows), len(columns)), np.nan)
    for trial in trials:
        y, x, text, colour = rows.index(_conditions(trial)), columns.index(trial.lr), "×", "black"
        if trial.stability is not None:
            values[y, x] = trial.stability
            text = f"{trial.stability:.{0 if abs(trial.stability) >= 100 else 1}f}"
            colour = "white" if abs(trial.stability) > 0.15 * largest else "black"
        axes.text(x, y, text, ha="center", va="center", fontsize=6, color=colour)
        if trial.chosen_by:
            line: Any = "-" if trial.chosen else (0, (2, 1))
            frame: dict[str, Any] = {"fill": False, "linewidth": 1.6, "edgecolor": "black"}
            axes.add_patch(Rectangle((x - 0.47, y - 0.42), 0.94, 0.84, linestyle=line, **frame))
    norm = SymLogNorm(1.0, vmin=-largest, vmax=largest)
    axes.imshow(values, cmap="PuOr", norm=norm, aspect="auto")
    axes.set_xticks(range(len(columns)), [f"{lr:.0e}".replace("e-0", "e-") for lr in columns])
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    first = trials[0]
    axes.set_title(
        f"{first.sampler.upper()} on {first.model}: mean / standard deviation of λ̂ "
        f"across {first.chains} chains"
    )
    axes.set_xlabel("step size ε")


def _efficiency(axes: Axes, trials: list[Trial]) -> None:
    """Draws the number of effective draws per gradient against the step size."""
    samplers = sorted({trial.sampler for trial in trials})
    for sampler, (colour, marker) in zip(samplers, LOOKS, strict=False):
        mine = [trial for trial in trials if trial.sampler == sampler and trial.efficiency]
        label = sampler.upper()
        for healthy in (True, False):
            rows = [trial for trial in mine if trial.healthy == healthy]
            look: dict[str, Any] = {"markersize": 3.5, "alpha": 0.8, "label": label}
            look |= {"color": colour, "markerfacecolor": colour if healthy else "none"}
            if rows:
                y = known([trial.efficiency for trial in rows])
                axes.plot([trial.lr for trial in rows], y, marker, **look)
                label = None
    used = [trial for trial in trials if trial.chosen]
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": "black"}
    y = known([trial.efficiency for trial in used])
    axes.plot([trial.lr for trial in used], y, "o", markersize=9, **ring)
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="step size ε", ylabel="effective draws per gradient")
    axes.set_title("effective draws (filled: healthy; ring: used)")
    axes.legend(loc="best")


def _importances(axes: Axes, rows: list[Importance]) -> None:
    if not rows:
        not_run(axes, "importances")
        return
    labels = [f"{row.sampler.upper()} {row.hyperparameter.replace('_', ' ')}" for row in rows]
    share = np.array([row.importance for row in rows])
    ends = np.array([row.interval for row in rows]).T
    half = np.clip([share - ends[0], ends[1] - share], 0, None)
    bars = {"linewidth": 0.8, "capsize": 2}
    axes.barh(range(len(rows)), share, xerr=half, color=LOOKS[0][0], alpha=0.6, error_kw=bars)
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of λ̂'s variance (fANOVA)")
    axes.set_title("importance, 95 % intervals")
