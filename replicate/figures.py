"""The figures, drawn from published records. Pure: records in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from replicate.published import Published
from replicate.results import Estimate, Trace, Trial

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "figure.dpi": 150,
    "pdf.fonttype": 42,
    "svg.hashsalt": "replicate",
}
# Okabe and Ito's blue and vermilion: told apart in grey and by colour-blind eyes; the marker says it a second time.
LOOKS = (("#0072B2", "o"), ("#D55E00", "s"))
WIDTH = 6.3  # inches, the text width


def llc(families: dict[str, list[Estimate]], published: dict[str, dict[str, Published]], study: str) -> Figure:
    """λ̂ against parameters: this study's estimates on the left, the published ones in the same shape on the right.

    A strong line joins λ̂ of the models with their 95 % intervals, a faint one those of one shuffle; open marks: λ̂ of a shuffle.
    """
    with plt.rc_context(STYLE):
        figure, (ours, theirs) = plt.subplots(1, 2, figsize=(WIDTH, 2.9), layout="constrained")
        for (family, rows), look in zip(families.items(), LOOKS, strict=False):
            known = [row for row in rows if row.status == "run" and row.llc is not None and row.parameters is not None]
            if known:
                size = [row.parameters or 0 for row in known]
                shuffles = np.array([[np.nan if value is None else value for value in row.groups] for row in known])
                half = np.array([(0, 0) if row.interval is None else np.abs(np.subtract(row.interval, row.llc or 0)) for row in known])
                against_size(ours, family, size, np.array([row.llc or 0 for row in known]), half.T, shuffles, look)
        if not ours.lines:
            ours.text(0.5, 0.5, "not run", ha="center", va="center", transform=ours.transAxes, color="0.4")
        for (family, models), look in zip(published.items(), LOOKS, strict=False):
            rows = list(models.values())
            means = np.array([row.mean for row in rows])
            against_size(theirs, family, [row.parameters for row in rows], np.array([row.reported for row in rows]), None, means, look)
        ours.set_title(f"{study} study, 95 % intervals")
        theirs.set_title("published (mean of shuffles with λ̂ > 0)")
        for axes in (ours, theirs):
            axes.axhline(0, color="0.6", linewidth=0.6, zorder=0)
            axes.set_xlabel("parameters")
            if axes.lines[1:]:
                axes.set_xscale("log")
                axes.legend(loc="upper left")
        ours.set_ylabel("local learning coefficient λ̂")
        return figure


def against_size(
    axes: Axes,
    name: str,
    size: Sequence[int],
    llc: np.ndarray,
    half: np.ndarray | None,
    shuffles_MxG: np.ndarray,
    look: tuple[str, str],
) -> None:
    colour, marker = look
    for values in shuffles_MxG.T:
        axes.plot(size, values, color=colour, alpha=0.25, linewidth=0.7, marker=marker, markersize=2.5, markerfacecolor="none")
    axes.errorbar(size, llc, yerr=half, color=colour, marker=marker, markersize=4, capsize=2.5, label=name)


def traces(rows: list[Trace], family: str) -> Figure:
    """Mean minibatch loss of all chains by step, a model a panel: band from the least to the greatest chain, burn-in shaded."""
    with plt.rc_context(STYLE):
        columns = max(1, min(2, len(rows)))
        lines = max(1, -(-len(rows) // columns))
        figure, grid = plt.subplots(lines, columns, figsize=(WIDTH, 1.9 * lines), layout="constrained", squeeze=False, sharex=True)
        for axes, row in zip(grid.flat, rows, strict=False):
            step = np.array(row.step)
            mean, low, high = (np.array([np.nan if v is None else v for v in values]) for values in (row.mean, row.low, row.high))
            axes.axvspan(step[0], 0, color="0.93", zorder=0)
            axes.fill_between(step, low, high, color=LOOKS[0][0], alpha=0.2, linewidth=0)
            axes.plot(step, mean, color=LOOKS[0][0])
            axes.axhline(row.loss_at_w_star, color="0.2", linewidth=0.8, linestyle=(0, (4, 2)))
            axes.set_title(row.model)
        for axes in grid[:, 0]:
            axes.set_ylabel("label loss (nats)")
        for axes in grid[-1]:
            axes.set_xlabel("step (burn-in below 0)")
        for axes in list(grid.flat)[len(rows) :]:
            axes.set_axis_off()
        if not rows:
            grid[0, 0].text(0.5, 0.5, f"{family}: not run", ha="center", va="center", color="0.4")
        return figure


def search(trials: list[Trial], family: str) -> Figure:
    """Stability (mean over standard deviation of λ̂ across chains) of every setting; crossed out where a chain failed, boxed: chosen."""
    with plt.rc_context(STYLE):
        samplers = sorted({trial.sampler for trial in trials})
        heights = [len({conditions(trial) for trial in trials if trial.sampler == sampler}) for sampler in samplers]
        figure, grid = plt.subplots(
            max(len(samplers), 1),
            1,
            figsize=(WIDTH, 0.9 + 0.24 * sum(heights) + 0.4 * len(heights)),
            layout="constrained",
            squeeze=False,
            height_ratios=heights or None,
        )
        largest = max((abs(trial.stability) for trial in trials if trial.stability is not None), default=1.0)
        for axes, sampler in zip(grid.flat, samplers, strict=False):
            heat_map(axes, [trial for trial in trials if trial.sampler == sampler], largest)
        if not trials:
            grid[0, 0].set_axis_off()
            grid[0, 0].text(0.5, 0.5, f"{family}: not run", ha="center", va="center", color="0.4")
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
        text = "×" if trial.stability is None else f"{trial.stability:.1f}"
        dark = trial.stability is not None and abs(trial.stability) > 0.55 * largest
        axes.text(at[1], at[0], text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        if trial.chosen:
            axes.add_patch(Rectangle((at[1] - 0.47, at[0] - 0.44), 0.94, 0.88, fill=False, linewidth=1.6, edgecolor="black"))
    axes.imshow(values, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
    axes.set_xticks(range(len(columns)), [f"{lr:.0e}".replace("e-0", "e-") for lr in columns])
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{trials[0].sampler.upper()} on {trials[0].model}: mean / standard deviation of λ̂ across {trials[0].chains} chains")
    axes.set_xlabel("step size ε")
