"""Chooses nβ, γ and the step from the model.

nβ   n/ln n (Watanabe 2013, arXiv 1208.6338), n the number of labels; or, where that is smaller,
     the largest at which the gradient at w* takes less than a tenth off λ̂
γ    the smallest on a ladder at which the loss rises by at most `NEAR` of the rise to guessing
ε    the largest whose bias of λ̂ by the noise of minibatches is at most `BIAS` for the quadratic
     loss with the Hessian of w* (`replicate.sampling.step_bias`); at most a quarter of the largest
     stable step. If the noise allows less than `PAYS` of that quarter, the noise at w* is taken off
     (`replicate.sampling.control`), and ε is that quarter

The sampler is Leimkuhler–Matthews, which needs fewer gradients than SGLD for the same error
(benchmarks/efficiency.json).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import xarray as xr
from torch import Tensor

from replicate.errors import ArgumentError
from replicate.estimation import estimators
from replicate.progress import Advance
from replicate.sampling import SamplerConfig, SamplingConfig, step_bias
from replicate.sampling.curvature import Curvature
from replicate.sampling.walkers import Walkers

NEAR = 0.05  # the largest rise of the loss of a local posterior, as a share of that to guessing
RUNG = 10**0.5  # ratio of γ between two rungs of the ladder
BIAS = 0.01  # of λ̂, relative, that the step may make
BURN_IN = 2.5  # relaxation times before the first draw
RELAXATIONS = 10  # relaxation times of λ̂ before the first look at it
LENGTH = 7  # relaxation times of burn-in, of the draws before the first look, and of a pair
PAYS = 0.25  # share of the stable step below which less noise is worth a second gradient
PROBE = 100  # draws at a rung of the ladder


@dataclass
class Settings:
    """Holds the settings that were given or chosen.

    Attributes:
        nbeta: nβ.
        localization: γ.
        lr: the step size ε.
        reasons: how each one that was not given was chosen.
        flattest: the lowest curvature (nats); 0 where it is not known or negative.
        sampler: the sampler's name.
        controlled: whether the noise of minibatches is reduced by its value at w*.
    """

    nbeta: float
    localization: float
    lr: float
    reasons: list[str] = field(default_factory=list)
    flattest: float = 0.0
    sampler: str = "leimkuhler"
    controlled: bool = False

    @property
    def relaxation(self) -> int:
        """The number of steps in which the flattest direction relaxes, 2/(ε·(nβ·h + γ))."""
        return math.ceil(2 / (self.lr * (self.nbeta * self.flattest + self.localization)))

    @property
    def burn_in(self) -> int:
        """The number of steps before the first draw."""
        return math.ceil(BURN_IN * self.relaxation)


@dataclass(frozen=True)
class Choice(ABC):
    """Chooses settings from the model, and runs the chains.

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
        hessian_N: the indices of the examples whose Hessian is measured along the chains; None to
            trust that at w*.
        evaluated_E: the indices of the examples whose losses are kept; None for none.
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
    hessian_N: Tensor | None = None
    evaluated_E: Tensor | None = None

    @property
    def count(self) -> int:
        """The number of chains."""
        return len(self.walkers.keys)

    @property
    def spent(self) -> int:
        """The number of gradients so far."""
        return self.walkers.gradients

    @property
    def natural(self) -> float:
        """n/ln n, the nβ of WBIC (Watanabe 2013)."""
        return self.labels / math.log(self.labels)

    def settings(
        self,
        nbeta: float | None,
        localization: float | None,
        lr: float | None,
        controlled: bool = False,
    ) -> Settings:
        """Chooses what is None. With `lr`, `controlled` says whether the noise is reduced.

        Raises:
            ArgumentError: γ cannot be chosen.
        """
        reasons: list[str] = []
        if nbeta is None:
            natural, most = self.natural, self.curvature.largest_nbeta()
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
            localization, reason = self._localization(nbeta, lr)
            reasons.append(f"γ = {localization:.4g}: the smallest of the ladder {reason}")
        if lr is None:
            lr, stable = self.step(nbeta, localization)
            controlled = lr < PAYS * stable and self._passes < self.budget / 10
            if controlled:
                lr = stable
                reasons.append(f"ε = {lr:.3g}: stable; the noise of minibatches at w* is taken off")
            else:
                reasons.append(f"ε = {lr:.3g}: a bias of {BIAS:.0%} of λ̂ at most")
        flattest = self.curvature.spectrum.flattest
        return Settings(nbeta, localization, lr, reasons, flattest, controlled=controlled)

    def step(self, nbeta: float, gamma: float) -> tuple[float, float]:
        """Returns the largest step with little bias, for the Hessian and the noise at w*, and a
        quarter of the largest stable step.
        """
        spectrum, alpha = self.curvature.spectrum, gamma / nbeta
        rate = step_bias.rate(self.curvature, nbeta, gamma, self.batch_size)
        positive = spectrum.mean(lambda h: np.maximum(h, 0) / (np.maximum(h, 0) + alpha))
        harmonic = spectrum.size * float(positive.mean()) / 2
        stable = 1 / (nbeta * max(self.curvature.highest, 0.0) + gamma)
        small = BIAS * harmonic / rate if rate > 0 and harmonic > 0 else math.inf
        return min(small, stable), stable

    @property
    def _passes(self) -> int:
        """The number of minibatches' gradients in that of all examples."""
        return math.ceil(len(self.walkers.init_losses_N) / self.batch_size)

    def _localization(self, nbeta: float, lr: float | None) -> tuple[float, str]:
        """Walks down the ladder of γ; returns the last, and why it is the last."""
        last, room = None, True
        for rung in self.ladder(nbeta, lr, PROBE):
            room = self._fits(rung[0], RUNG)
            last = rung[0].localization
            if not room:
                break
        if last is None:
            raise ArgumentError(
                f"localization: the loss rises by more than {NEAR:.0%} of the rise to guessing even"
                f" at γ = {self._tightest():.3g}; give nbeta or localization"
            )
        local = f"at which the loss rises by at most {NEAR:.0%} of the rise to guessing"
        return last, local if room else "for which the budget is enough"

    def ladder(
        self, nbeta: float, lr: float | None, draws: int
    ) -> Iterator[tuple[Settings, xr.Dataset]]:
        """Yields settings and the chains' trace at falling γ, while the chains stay near w*.

        Raises:
            ArgumentError: the loss of guessing is not known, or not above the model's.
        """
        gamma = self._tightest()
        while True:
            start = self.walkers.saved()
            tried = self.settings(nbeta, gamma, lr)
            trace = self.rung(tried, draws)
            rise = float(estimators.controlled(trace, 1.0, self.loss, c=1.0).mean(skipna=False))
            if not rise <= self._allowed():  # NaN if a chain diverged
                self.walkers.restore(start)
                return
            yield tried, trace
            gamma /= RUNG

    @abstractmethod
    def rung(self, settings: Settings, draws: int) -> xr.Dataset:
        """Returns the trace of chains that go on from where they are, with at least `draws`."""

    def _allowed(self) -> float:
        """Returns the largest rise of the loss of a local posterior (nats)."""
        if self.guess is None:
            raise ArgumentError("localization: give it, for no loss of guessing is known here")
        if self.guess <= self.loss:
            raise ArgumentError(
                f"localization: give it, for the model's loss of {self.loss:.3g} is no better than"
                f" guessing ({self.guess:.3g})"
            )
        return NEAR * (self.guess - self.loss)

    def _tightest(self) -> float:
        """Returns the γ at which the loss of the Gaussian ball rises by 2 % of what is allowed."""
        return max(self.curvature.trace[0], 1e-6) / (2 * 0.02 * self._allowed())

    def _fits(self, settings: Settings, times: float) -> bool:
        """Tells whether the first look at a γ that is `times` smaller is within half the budget."""
        steps = times * LENGTH * settings.relaxation
        gradients = steps * self.count * (1 + settings.controlled)
        return self.spent + gradients <= self.budget / 2

    def walk(self, settings: Settings, burn_in: int, draws: int) -> xr.Dataset:
        """Runs the chains from where they are; returns their trace."""
        config, sampling = self.configured(settings, burn_in, draws)
        trace = self.walkers.run(config, sampling, self.advance, controlled=settings.controlled)
        described = {"sampler": asdict(config), "sampling": asdict(sampling)}
        return trace.assign_attrs(described, controlled=settings.controlled)

    def configured(
        self, settings: Settings, burn_in: int, draws: int
    ) -> tuple[SamplerConfig, SamplingConfig]:
        """Returns what the chains are run with."""
        shape = self.walkers.shuffles, self.walkers.chains, burn_in, draws
        return (
            SamplerConfig(settings.sampler, settings.lr, localization=settings.localization),
            SamplingConfig(
                settings.nbeta, self.batch_size, *shape, microbatch_size=self.microbatch_size
            ),
        )

    def at_minimum(self, nbeta: float, gamma: float) -> dict[str, list[float]]:
        """Returns the harmonic and the gradient part of λ̂.

        Where H is too negative for a Gaussian, the harmonic part is NaN, and negative curvatures
        count as 0 in the gradient part.
        """
        found = self.curvature
        share = found.gradient.examples / len(self.walkers.init_losses_N)
        try:
            harmonic, clipped = found.harmonic(nbeta, gamma), False
        except ArgumentError:  # no Gaussian has this curvature
            harmonic, clipped = (math.nan, math.nan), True
        part = found.gradient_part(nbeta, gamma, sampled=share, clipped=clipped)
        return {"harmonic": list(harmonic), "gradient_part": list(part)}

    def away(self, trace: xr.Dataset, settings: Settings) -> list[str]:
        """Says how far the posterior's centre is, if a gradient moves it by more than its error."""
        found, nbeta, gamma = self.curvature.gradient, settings.nbeta, settings.localization
        if found.squared <= 2 * found.error:
            return []
        sample, noise = found.quadrature.mean(
            lambda h: (nbeta / (nbeta * np.maximum(h, 0) + gamma)) ** 2
        )
        squared = found.sample_squared * sample - (found.sample_squared - found.squared) * noise
        distance = float(np.sqrt(trace.squared_distance.sel(draw=slice(0, None)).mean()))
        return [
            f"w* has a gradient, ‖g‖² = {found.squared:.3g} ± {found.error:.2g}: the centre of the"
            f" posterior is about {max(squared, 0) ** 0.5:.2g} from w*, the chains {distance:.2g}"
        ]
