"""Chooses nβ, γ, the step and the length of the chains from the model, and estimates λ̂ with them.

    nβ   n/ln n (Watanabe 2013, arXiv 1208.6338), n the number of labels; or, where that is smaller,
         the largest at which the gradient at w* takes less than a tenth off λ̂
    γ    the smallest on a ladder at which the loss rises by at most `NEAR` of the rise to guessing
    ε    the largest whose bias of λ̂ is at most `BIAS` for the quadratic loss with the Hessian of
         w*, and a quarter of what is stable; it is halved until the virial theorem holds

A step ε makes the variance of a direction of curvature h too large by the factor 1/(1 − ε·a/4) with
a = nβ·h + γ, so that the bias of λ̂ is ε·nβ·tr(H)/8.

Free directions relax in 2/(ε·γ) steps. The burn-in is at least 2.5 of these relaxation times, and
the first look at the estimate comes after `RELAXATIONS` of them; then the draws are doubled until
the 95 % interval is narrow enough or the budget is used up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import xarray as xr

from replicate.errors import ArgumentError
from replicate.estimation import estimators, posterior, regimes
from replicate.progress import Advance
from replicate.sampling import SamplerConfig, SamplingConfig
from replicate.sampling.curvature import Curvature
from replicate.sampling.walkers import Walkers

NEAR = 0.05  # the largest rise of the loss of a local posterior, as a share of that to guessing
RUNG = 10**0.5  # ratio of γ between two rungs of the ladder
BIAS = 0.01  # of λ̂, relative, that the step may make
RELAXATIONS = 10  # relaxation times before the first look at an estimate
PROBE = 100  # draws at a rung of the ladder
HALVINGS = 5  # of the step, at most


@dataclass
class Settings:
    """Holds the settings that were given or chosen.

    Attributes:
        nbeta: nβ.
        localization: γ.
        lr: the step size ε.
        reasons: how each one that was not given was chosen.
    """

    nbeta: float
    localization: float
    lr: float
    reasons: list[str] = field(default_factory=list)

    @property
    def relaxation(self) -> int:
        """The number of steps in which a direction without curvature relaxes, 2/(ε·γ)."""
        return math.ceil(2 / (self.lr * self.localization))


@dataclass(frozen=True)
class Search:
    """Finds settings and runs the chains.

    Attributes:
        walkers: the chains, at w*.
        curvature: the Hessian's spectrum and the gradient at w*.
        loss: the mean loss at w* over all examples (nats).
        guess: the loss of guessing (nats); None if unknown.
        labels: n, the number of labels in the data.
        batch_size: examples in a step's minibatch.
        microbatch_size: examples in one backward pass; None for the whole minibatch.
        budget: the number of gradients of minibatches that may be computed.
        advance: is told how many more gradients were computed.
    """

    walkers: Walkers
    curvature: Curvature
    loss: float
    guess: float | None
    labels: int
    batch_size: int
    microbatch_size: int | None
    budget: int
    advance: Advance

    @property
    def count(self) -> int:
        """The number of chains."""
        return len(self.walkers.keys)

    @property
    def spent(self) -> int:
        """The number of gradients so far."""
        return self.walkers.steps * self.count

    def settings(
        self, nbeta: float | None, localization: float | None, lr: float | None
    ) -> Settings:
        """Chooses what is None.

        Raises:
            ArgumentError: γ cannot be chosen.
        """
        reasons: list[str] = []
        if nbeta is None:
            natural, most = self.labels / math.log(self.labels), self.curvature.largest_nbeta()
            nbeta = min(natural, most)
            reasons.append(
                f"nβ = {nbeta:.4g}: "
                + (
                    f"n/ln n of {self.labels:,} labels"
                    if natural <= most
                    else f"the largest at which the gradient takes less than a tenth off λ̂ (n/ln n"
                    f" is {natural:.4g})"
                )
            )
        if localization is None:
            localization = self._localization(nbeta, lr)
            reasons.append(
                f"γ = {localization:.4g}: the smallest of the ladder at which the loss rises by at"
                f" most {NEAR:.0%} of the rise to guessing"
            )
        if lr is None:
            lr = self.step(nbeta, localization)
            reasons.append(f"ε = {lr:.3g}: a bias of {BIAS:.0%} of λ̂ at most")
        return Settings(nbeta, localization, lr, reasons)

    def step(self, nbeta: float, gamma: float) -> float:
        """Returns the largest step with little bias, for the Hessian at w*."""
        spectrum = self.curvature.spectrum
        trace, h_max = max(self.curvature.trace[0], 1e-12), max(self.curvature.highest, 0.0)
        harmonic = spectrum.size * float(
            spectrum.mean(
                lambda h: 0.5 * np.maximum(h, 0) / (np.maximum(h, 0) + gamma / nbeta)
            ).mean()
        )
        return min(8 * BIAS * harmonic / (nbeta * trace), 1 / (nbeta * h_max + gamma))

    def _localization(self, nbeta: float, lr: float | None) -> float:
        """Walks down a ladder of γ while the chains stay near w*."""
        if self.guess is None:
            raise ArgumentError("localization: give it, for no loss of guessing is known here")
        if self.guess <= self.loss:
            raise ArgumentError(
                f"localization: give it, for the model's loss of {self.loss:.3g} is no better than"
                f" guessing ({self.guess:.3g})"
            )
        allowed = NEAR * (self.guess - self.loss)
        trace = self.curvature.trace[0]
        gamma, last = max(trace, 1e-6) / (2 * 0.02 * allowed), None
        while self.spent < self.budget / 2:
            tried = Settings(nbeta, gamma, lr or self.step(nbeta, gamma))
            trace = self.walk(tried, tried.relaxation * 5 // 2, PROBE)
            rise = float(estimators.controlled(trace, 1.0, self.loss, c=1.0).mean(skipna=False))
            if not rise <= allowed:  # NaN if a chain diverged
                break
            last, gamma = gamma, gamma / RUNG
        if last is None:
            raise ArgumentError(
                f"localization: the loss rises by more than {NEAR:.0%} of the rise to guessing even"
                f" at γ = {gamma:.3g}; give nbeta or localization"
            )
        return last

    def walk(self, settings: Settings, burn_in: int, draws: int) -> xr.Dataset:
        """Runs the chains from where they are; returns their trace."""
        config = SamplerConfig("sgld", settings.lr, localization=settings.localization)
        sampling = SamplingConfig(
            settings.nbeta,
            self.batch_size,
            self.walkers.shuffles,
            self.walkers.chains,
            burn_in,
            draws,
            microbatch_size=self.microbatch_size,
        )
        trace = self.walkers.run(config, sampling, self.advance)
        return trace.assign_attrs(sampler=asdict(config), sampling=asdict(sampling))

    def precise(
        self, settings: Settings, precision: float, *, fixed_step: bool
    ) -> tuple[xr.Dataset, list[str]]:
        """Draws until the 95 % interval of λ̂ is within ± `precision`, or the budget ends.

        Returns:
            The trace, and what was done: how the step was checked, and why the draws ended.

        Raises:
            ArgumentError: the budget is too small, or all chains diverged.
        """
        notes: list[str] = []
        trace = self._first(settings)
        for _ in range(0 if fixed_step else HALVINGS):
            if (told := self._wrong(trace, settings)) is None:
                break
            settings.lr /= 2
            notes.append(f"ε = {settings.lr:.3g}: halved, {told}")
            trace = self._first(settings)
        while (width := self._width(trace, settings)) > precision:
            more = trace.sizes["draw"] - int((trace.draw < 0).sum())
            if self.spent + more * self.count > self.budget:
                return trace, [*notes, f"the budget of {self.budget:,} gradients ended the draws"]
            again = self.walk(settings, 0, more)
            trace = _joined(trace, again)
        return trace, [*notes, f"the interval is within ± {width:.1%}, as asked"]

    def _first(self, settings: Settings) -> xr.Dataset:
        """Runs the chains until the first look."""
        draws, burn_in = RELAXATIONS * settings.relaxation, settings.relaxation * 5 // 2
        needed = self.spent + (draws + burn_in) * self.count
        if needed > self.budget:
            problem = f"the first look at λ̂ needs {needed:,} gradients; raise it"
            raise ArgumentError(f"budget = {self.budget}: {problem}")
        return self.walk(settings, burn_in, draws)

    def _wrong(self, trace: xr.Dataset, settings: Settings) -> str | None:
        """Says what is wrong with the step; None if nothing is."""
        if bool(trace.diverged.any()):
            return "because a chain diverged"
        size = sum(self.walkers.task.sizes)
        value, error = posterior.temperature(trace, settings.localization, size)
        limit = regimes.Limits().equilibrium
        if value - 1 > max(3 * error, limit):
            return f"because the temperature was {value:.3f}"
        return None

    def _width(self, trace: xr.Dataset, settings: Settings) -> float:
        result = estimators.summarise(estimators.controlled(trace, settings.nbeta, self.loss))
        if result.diverged_chains == result.chains:
            raise ArgumentError("all chains diverged; lower lr, or raise localization")
        low, high = result.interval
        half = (high - low) / 2
        return half / abs(result.llc) if math.isfinite(half) else math.inf


def _joined(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """Joins the draws of two runs of the same chains."""
    end = int(first.draw[-1]) + 1
    moved = second.assign_coords(draw=np.arange(end, end + second.sizes["draw"]))
    diverged = first.diverged | second.diverged
    parts: Sequence[xr.Dataset] = [each.drop_vars("diverged") for each in (first, moved)]
    found = xr.concat(parts, "draw").assign(diverged=diverged)
    sampling = dict(first.attrs["sampling"]) | {"draws": end}
    return found.assign_attrs(first.attrs | {"sampling": sampling})
