"""The hyperparameter search: every setting of the grids, and what explains λ̂ there."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from replicate.reporting.figures.style import LOOKS, WIDTH, known, not_run, style
from replicate.study.records import Importance, Trial


def search(trials: list[Trial], importances: list[Importance], family: str) -> Figure:
    """Top: stability (mean over standard deviation of λ̂ across chains) of the grids' settings,
    crossed out where a chain failed. Below: effective draws per gradient of every trial, and how
    much of λ̂'s variance over the grid each hyperparameter explains.
    """
    with style():
        grids = {
            s: [t for t in trials if t.sampler == s and t.proposed_by == "grid"]
            for s in sorted({t.sampler for t in trials})
        }
        grids = {sampler: rows for sampler, rows in grids.items() if rows}
        if not grids:
            figure, axes = plt.subplots(figsize=(WIDTH, 1.2), layout="constrained")
            not_run(axes, family)
            return figure
        heights = [
            0.18 * len({conditions(trial) for trial in rows}) + 0.5 for rows in grids.values()
        ]
        figure = plt.figure(figsize=(WIDTH, sum(heights) + 2.5), layout="constrained")
        panels = figure.add_gridspec(len(grids) + 1, 2, height_ratios=[*heights, 2.2])
        largest = max(
            (abs(trial.stability) for trial in trials if trial.stability is not None), default=1.0
        )
        for line, rows in enumerate(grids.values()):
            heat_map(figure.add_subplot(panels[line, :]), rows, largest)
        efficiency(figure.add_subplot(panels[-1, 0]), trials)
        importance(figure.add_subplot(panels[-1, 1]), importances)
        return figure


def conditions(trial: Trial) -> str:
    """All but the step size, as a row's label."""
    box = "no box" if trial.bounding_box is None else f"box {trial.bounding_box:g}"
    if trial.sampler == "sgnht":
        return f"A {trial.diffusion:g}, {box}"
    return f"μ {trial.weight_decay:g}, γ {trial.localization:g}, {box}"


def heat_map(axes: Axes, trials: list[Trial], largest: float) -> None:
    columns = sorted({trial.lr for trial in trials})
    rows = list(dict.fromkeys(conditions(trial) for trial in trials))
    values = np.full((len(rows), len(columns)), np.nan)
    for trial in trials:
        at = rows.index(conditions(trial)), columns.index(trial.lr)
        if trial.stability is not None:
            values[at] = trial.stability
        text = (
            "×"
            if trial.stability is None
            else f"{trial.stability:.1f}"
            if abs(trial.stability) < 100
            else f"{trial.stability:.0f}"
        )
        dark = trial.stability is not None and abs(trial.stability) > 0.15 * largest
        axes.text(
            at[1],
            at[0],
            text,
            ha="center",
            va="center",
            fontsize=6,
            color="white" if dark else "black",
        )
        if trial.chosen_by:
            dashes = "-" if trial.chosen else (0, (2, 1))
            box = Rectangle(
                (at[1] - 0.47, at[0] - 0.42),
                0.94,
                0.84,
                fill=False,
                linewidth=1.6,
                edgecolor="black",
                linestyle=dashes,
            )
            axes.add_patch(box)
    axes.imshow(
        values, cmap="PuOr", norm=SymLogNorm(1.0, vmin=-largest, vmax=largest), aspect="auto"
    )
    axes.set_xticks(range(len(columns)), [f"{lr:.0e}".replace("e-0", "e-") for lr in columns])
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{trials[0].sampler.upper()} on {trials[0].model}: mean / standard deviation of λ̂ across {trials[0].chains} chains"
    )
    axes.set_xlabel("step size ε")


def efficiency(axes: Axes, trials: list[Trial]) -> None:
    """Effective draws per gradient against step size: filled where healthy, a ring round the
    setting that is used.
    """
    for sampler, (colour, marker) in zip(
        sorted({trial.sampler for trial in trials}), LOOKS, strict=False
    ):
        mine = [
            trial
            for trial in trials
            if trial.sampler == sampler and trial.efficiency is not None and trial.efficiency > 0
        ]
        for healthy in (True, False):
            rows = [trial for trial in mine if trial.healthy == healthy]
            if rows:
                x, y = [trial.lr for trial in rows], known([trial.efficiency for trial in rows])
                face = colour if healthy else "none"
                label = (
                    sampler.upper() if healthy or not any(trial.healthy for trial in mine) else None
                )
                axes.plot(
                    x,
                    y,
                    marker,
                    color=colour,
                    markerfacecolor=face,
                    markersize=3.5,
                    alpha=0.8,
                    linestyle="none",
                    label=label,
                )
        for trial in mine:
            if trial.chosen:
                axes.plot(
                    [trial.lr],
                    known([trial.efficiency]),
                    "o",
                    markersize=9,
                    markerfacecolor="none",
                    markeredgecolor="black",
                )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("step size ε")
    axes.set_ylabel("effective draws per gradient")
    axes.set_title("effective draws (filled: healthy; ring: used)")
    axes.legend(loc="best")


def importance(axes: Axes, rows: list[Importance]) -> None:
    if not rows:
        not_run(axes, "importances")
        return
    labels = [f"{row.sampler.upper()} {row.hyperparameter.replace('_', ' ')}" for row in rows]
    share, bounds = (
        np.array([row.importance for row in rows]),
        np.array([row.interval for row in rows]),
    )
    half = np.clip([share - bounds[:, 0], bounds[:, 1] - share], 0, None)
    axes.barh(
        range(len(rows)),
        share,
        xerr=half,
        color=LOOKS[0][0],
        alpha=0.6,
        error_kw={"linewidth": 0.8, "capsize": 2},
    )
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of λ̂'s variance (fANOVA)")
    axes.set_title("importance, 95 % intervals")
