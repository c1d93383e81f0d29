"""A page a model: what its chains did, and whether to believe it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.reporting.figures.style import DASHES, LOOKS, WIDTH, known, style
from replicate.study.records import Estimate, Trace

COLOUR, SECOND = LOOKS[0][0], LOOKS[1][0]


def diagnostics(row: Trace, estimate: Estimate) -> Figure:
    """Loss of every chain with burn-in shaded, running λ̂ with its interval, λ̂ of the chains;
    R-hat, ESS, and what is wrong in words.
    """
    with style():
        figure = plt.figure(figsize=(WIDTH, 3.5), layout="constrained")
        figure.suptitle(headline(row, estimate), fontsize=7.5, ha="left", x=0.01)
        grid = figure.add_gridspec(2, 2, width_ratios=[3, 1])
        losses(figure.add_subplot(grid[0, :]), row)
        axes = figure.add_subplot(grid[1, 0])
        running(axes, row, estimate)
        histogram(figure.add_subplot(grid[1, 1], sharey=axes), row, estimate)
        return figure


def headline(row: Trace, estimate: Estimate) -> str:
    """λ̂, its health in numbers, and the advice, a line each."""
    value = "no estimate" if estimate.llc is None else f"λ̂ = {estimate.llc:.4g}"
    if estimate.standard_error is not None:
        value += f" ± {estimate.standard_error:.2g}"
    rhat = "–" if estimate.rhat is None else f"{estimate.rhat:.3f}"
    ess = "–" if estimate.ess is None else f"{estimate.ess:.0f}"
    drift = "–" if estimate.drift_p is None else f"p = {estimate.drift_p:.2g}"
    failed = f"{estimate.failed_chains} of {estimate.chains} chains failed"
    words = [f"→ {line}" for line in row.advice] or ["→ nothing wrong found"]
    return "\n".join(
        [
            f"{row.model}: {value};  R-hat {rhat}, {ess} effective draws, drift {drift}, {failed}",
            *words,
        ]
    )


def losses(axes: Axes, row: Trace) -> None:
    step = np.array(row.step)
    for values in row.chains:
        axes.plot(step, known(values), color=COLOUR, alpha=0.35, linewidth=0.6)
    axes.plot(step, np.nanmean([known(values) for values in row.chains], axis=0), color=COLOUR)
    axes.axhline(row.loss_at_w_star, color="0.2", linewidth=0.8, linestyle=DASHES)
    if step[0] < 0:
        axes.axvspan(step[0], 0, color="0.93", zorder=0)
        axes.annotate(
            "burn-in",
            (step[0], 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -8),
            textcoords="offset points",
            color="0.4",
        )
    axes.annotate(
        "loss at w*",
        (step[-1], row.loss_at_w_star),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
    )
    axes.set_xlim(step[0], step[-1])
    axes.set_xlabel("step")
    axes.set_ylabel("minibatch loss (nats)")


def running(axes: Axes, row: Trace, estimate: Estimate) -> None:
    """Student's interval over shuffles of the draws so far."""
    step, mean, error = np.array(row.step), known(row.running), known(row.running_error)
    half = 1.96 * error
    if estimate.interval is not None and estimate.llc is not None and estimate.standard_error:
        half = (estimate.interval[1] - estimate.llc) / estimate.standard_error * error
    axes.fill_between(step, mean - half, mean + half, color=COLOUR, alpha=0.2, linewidth=0)
    axes.plot(step, mean, color=COLOUR)
    axes.set_xlabel("draw")
    axes.set_ylabel("running λ̂, 95 %")


def histogram(axes: Axes, row: Trace, estimate: Estimate) -> None:
    chains = known(row.chain_llc)
    alive = chains[np.isfinite(chains)]
    if len(alive) > 1:
        axes.hist(
            alive, bins=max(4, len(alive) // 2), orientation="horizontal", color=SECOND, alpha=0.6
        )
    if estimate.llc is not None:
        axes.axhline(estimate.llc, color="0.2", linewidth=0.8)
    axes.tick_params(labelleft=False)
    axes.set_xlabel("chains")
