"""Draws the chains of one model and their diagnostics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.reporting.figures.style import DASHED, LOOKS, WIDTH, known, style
from replicate.reporting.tables.models import health
from replicate.study.records import Estimate, ThinnedTrace

COLOUR, SECOND = LOOKS[0][0], LOOKS[1][0]


@style()
def diagnostics(row: ThinnedTrace, estimate: Estimate) -> Figure:
    """Draws every chain's loss, the running λ̂ with its interval, and a histogram of chains' λ̂."""
    figure = plt.figure(figsize=(WIDTH, 3.5), layout="constrained")
    advice = [f"→ {line}" for line in row.advice] or ["→ nothing wrong found"]
    headline = "\n".join([f"{row.model}: {health(estimate)}", *advice])
    figure.suptitle(headline, fontsize=7.5, ha="left", x=0.01)
    grid = figure.add_gridspec(2, 2, width_ratios=[3, 1])
    _losses(figure.add_subplot(grid[0, :]), row)
    axes = figure.add_subplot(grid[1, 0])
    _running(axes, row, estimate)
    _chains(figure.add_subplot(grid[1, 1], sharey=axes), row, estimate)
    return figure


def _losses(axes: Axes, row: ThinnedTrace) -> None:
    step = np.array(row.step)
    chains = [known(losses) for losses in row.chains]
    for losses in chains:
        axes.plot(step, losses, color=COLOUR, alpha=0.35, linewidth=0.6)
    axes.plot(step, np.nanmean(chains, axis=0), color=COLOUR)
    axes.axhline(row.baseline_loss, **DASHED)
    offset = {"textcoords": "offset points", "fontsize": 6.5}
    end = (step[-1], row.baseline_loss)
    axes.annotate("loss at w*", end, xytext=(0, 2), ha="right", **offset)
    if step[0] < 0:
        axes.axvspan(step[0], 0, color="0.93", zorder=0)
        corner = {"xycoords": ("data", "axes fraction"), "xytext": (3, -8), "color": "0.4"}
        axes.annotate("burn-in", (step[0], 1), **corner, **offset)
    axes.set_xlim(step[0], step[-1])
    axes.set(xlabel="step", ylabel="minibatch loss (nats)")


def _running(axes: Axes, row: ThinnedTrace, estimate: Estimate) -> None:
    """Draws the running λ̂, estimated from the draws so far, with Student's interval."""
    step, mean, error = np.array(row.step), known(row.running), known(row.running_error)
    half = 1.96 * error
    if estimate.interval is not None and estimate.llc is not None and estimate.standard_error:
        half = (estimate.interval[1] - estimate.llc) / estimate.standard_error * error
    axes.fill_between(step, mean - half, mean + half, color=COLOUR, alpha=0.2, linewidth=0)
    axes.plot(step, mean, color=COLOUR)
    axes.set(xlabel="draw", ylabel="running λ̂, 95 %")


def _chains(axes: Axes, row: ThinnedTrace, estimate: Estimate) -> None:
    finite = [value for value in row.chain_llc if value is not None]
    if len(finite) > 1:
        bins = max(4, len(finite) // 2)
        axes.hist(finite, bins=bins, orientation="horizontal", color=SECOND, alpha=0.6)
    if estimate.llc is not None:
        axes.axhline(estimate.llc, color="0.2", linewidth=0.8)
    axes.tick_params(labelleft=False)
    axes.set_xlabel("chains")
