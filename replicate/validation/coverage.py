"""Repeats short runs on a language model, to see how often their 95 % intervals hold λ̂.

The model is mini-34k (docs/mini-34k) on text of the built-in grammar. A run is `CHAINS` chains of
SGLD with minibatches and noise of its own. Its λ̂ and interval are those of `estimators.controlled`
and `estimators.summarise`, as for any model. The λ̂ that the intervals should hold is the mean of
long runs with the same nβ, γ and step. So what is checked is the interval of the chain's
expectation at this step; the bias of the step is no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from replicate.automatic import Search, Settings
from replicate.data import grammar, windows
from replicate.estimation import estimators
from replicate.models import loading, module, stacked
from replicate.models.config import TextLoss
from replicate.progress import Advance, silent
from replicate.sampling import Task
from replicate.sampling import curvature as curvatures
from replicate.sampling.walkers import Walkers
from replicate.seeds import derive

Interval = tuple[float, float]

TARGET = "mini-34k"
FOLDER = Path(__file__).parents[2] / "docs" / TARGET
REVIEWS, WINDOWS, LENGTH = 5000, 4096, 48
BATCH, CHAINS = 32, 4
BUDGET = 20_000  # gradients, after which chains end even if λ̂ is not precise


@dataclass(frozen=True)
class Setting:
    """Describes runs.

    Attributes:
        loss: the loss of a window.
        nbeta: nβ.
        localization: γ.
        lr: the step size ε.
        draws: the draws of each chain after the burn-in; with `precision`, about how many there
            will be.
        precision: if given, the chains end by the rule of `Search.precise` for this precision.
    """

    loss: TextLoss
    nbeta: float
    localization: float
    lr: float
    draws: int
    precision: float | None = None

    @property
    def chosen(self) -> Settings:
        """What `Search` takes."""
        return Settings(self.nbeta, self.localization, self.lr, sampler="sgld")

    @property
    def burn_in(self) -> int:
        """The burn-in of automatic chains, in steps."""
        return self.chosen.relaxation * 5 // 2

    def __str__(self) -> str:
        loss = "label" if self.loss == "last" else "all tokens"
        until = f"{self.draws} draws"
        if self.precision is not None:
            until = f"until ± {self.precision:.0%}"
        return f"{loss}, nβ {self.nbeta:g}, γ {self.localization:g}, ε {self.lr:g}, {until}"


SETTINGS = {
    "short": Setting("last", 30, 500, 1e-3, draws=40),
    "localised": Setting("last", 30, 5000, 1e-4, draws=40),
    "tokens": Setting("tokens", 1910, 300, 1e-4, draws=100),
    "stopped": Setting("last", 30, 500, 1e-3, draws=100, precision=0.1),
}


class Problem:
    """Holds the model at w*, its windows, and their losses.

    Args:
        loss: the loss of a window.
        seed: the seed from which the text is derived.
    """

    def __init__(self, loss: TextLoss, seed: int) -> None:
        model = loading.load(FOLDER, "float32", torch.device("cpu"))
        tokenizer = windows.read_tokenizer(FOLDER / "tokenizer.json")
        written = grammar.reviews(derive(seed, "coverage", "text"), REVIEWS)
        texts = [grammar.text(choices) for choices in written]
        found = windows.select(texts, tokenizer, LENGTH).tokens_NxL[:WINDOWS]
        tokens_NxL, losses = torch.from_numpy(found), module.TEXT_LOSSES[loss]
        named = dict(model.named_parameters())
        self.task = Task(
            lambda index_B: losses(model, tokens_NxL[index_B].long()),
            list(named.values()),
            stacked=stacked.loss(model, tokens_NxL, tuple(named), loss),
        )
        self.losses_N = module.losses(self.task, WINDOWS, 256, silent)
        self.hessian_N = torch.arange(4 * BATCH)
        self.curvature = curvatures.measure(
            self.task,
            self.hessian_N,
            batch_size=BATCH,
            probes=2,
            products=2,
            seed=derive(seed, "coverage", "probes"),
            advance=silent,
        )

    def run(self, setting: Setting, seed: int, advance: Advance) -> NDArray[np.float32]:
        """Runs the chains of one run from w*.

        Args:
            setting: the setting, whose loss is the problem's.
            seed: the seed of the run's minibatches and noise.
            advance: is told how many more gradients are computed.

        Returns:
            The contribution of each draw to λ̂, (chain, draw).
        """
        walkers = Walkers(
            self.task,
            self.losses_N,
            1,
            CHAINS,
            order=lambda _: np.random.default_rng(derive(seed, "order")).permutation(WINDOWS),
            noise=lambda _, chain: derive(seed, "noise", chain),
        )
        loss = float(self.losses_N.mean(dtype=np.float64))
        numbers = loss, None, WINDOWS, BATCH, None, BUDGET
        search = Search(walkers, self.curvature, *numbers, advance, self.hessian_N)
        if setting.precision is None:
            trace = search.walk(setting.chosen, setting.burn_in, setting.draws)
        else:
            trace, _ = search.precise(setting.chosen, setting.precision, fixed_step=True)
        return estimators.controlled(trace, setting.nbeta, loss).values[0].astype(np.float32)


@dataclass(frozen=True)
class Coverage:
    """Holds how often nominal 95 % intervals of independent runs hold what they should.

    This is `true_llc`, which has a standard error if it is itself an estimate. `interval` is the
    95 % interval of `share` (Clopper and Pearson 1934).
    """

    kind: Literal["closed form", "language model"]
    target: str
    setting: str
    true_llc: float
    standard_error: float | None
    repeats: int
    covered: int
    share: float
    interval: Interval


def covered(
    kind: Literal["closed form", "language model"],
    target: str,
    setting: str,
    expected: tuple[float, float | None],
    intervals: Sequence[Interval],
) -> Coverage:
    """Counts the intervals that hold the expected value.

    Args:
        kind: whether the expected value is known or comes from long runs.
        target: the model.
        setting: how the runs differ from other runs of the model.
        expected: the value and its standard error, None if it is known.
        intervals: the 95 % interval of each run.
    """
    held, repeats = sum(low <= expected[0] <= high for low, high in intervals), len(intervals)
    low, high = stats.binomtest(held, repeats).proportion_ci(method="exact")
    share = held / repeats, (float(low), float(high))
    return Coverage(kind, target, setting, *expected, repeats, held, *share)


def mean(long: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Returns the mean λ̂ of independent runs, and its standard error, from their draws."""
    llc_R = [float(values_CxD.mean(dtype=np.float64)) for values_CxD in long]
    return float(np.mean(llc_R)), float(stats.sem(llc_R))


def interval(values_CxD: NDArray[np.float32], setting: Setting) -> Interval:
    """Returns the 95 % interval of a run from the contributions of its draws."""
    values = xr.DataArray(values_CxD[None].astype(np.float64), dims=("shuffle", "chain", "draw"))
    return estimators.summarise(values, halves=setting.precision is not None).interval
