"""Draws until λ̂ is precise enough, with settings that are given or chosen (`replicate.choosing`).

The step ε is made smaller while a chain diverges, while it is more than a quarter of what is stable
where the chains are, while the virial theorem does not hold, and while a pair of chains with ε and
ε/2 on common noise shows a bias above `BIAS` by two standard errors.

A direction of curvature h relaxes in 2/(ε·(nβ·h + γ)) steps. For the slowest, h is taken as 0, or
as the lowest eigenvalue of the Hessian where the products with it find that, as they do for few
weights. The burn-in is 2.5 of these relaxation times, since all directions have to be in
equilibrium. λ̂ itself relaxes faster, because directions with h far below γ/nβ add little to it. Its
relaxation time is measured from the chains: half the number of draws that count as one independent
draw (Sokal 1997, doi 10.1007/978-1-4899-0319-8_6). The first look at the estimate comes after
`RELAXATIONS` of these; then the draws are doubled until the 95 % interval is narrow enough or the
budget is used up. Four chains would agree too often by chance to end the draws alone, so their
halves count too (`estimators.summarise`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import xarray as xr

from replicate.choosing import BIAS, RELAXATIONS, Choice, Settings
from replicate.errors import ArgumentError
from replicate.estimation import diagnostics, estimators, posterior, regimes
from replicate.sampling import step_bias

HALVINGS = 5  # of the step, at most
FEWEST = 40  # draws of a chain, from which the relaxation time of λ̂ is measured
PAIR = 0.5  # relaxation times of the burn-in of a pair of chains with ε and ε/2, and of its draws
LEG = 16  # the least number of steps between two draws at which examples are evaluated


@dataclass(frozen=True)
class Search(Choice):
    """Finds settings, and runs the chains until λ̂ is precise enough."""

    def _kept(self, settings: Settings, draws: int) -> xr.Dataset:
        """Draws, and computes the losses of the evaluated examples now and then."""
        if self.evaluated_E is None:
            return self.walk(settings, 0, draws)
        every, legs = max(LEG, settings.relaxation // 2), []
        for first in range(0, draws, every):
            trace = self.walk(settings, 0, min(every, draws - first))
            losses = self.walkers.losses(self.evaluated_E, self.batch_size)[:, :, None]
            dims = ("shuffle", "chain", "kept", "example")
            legs.append(trace.assign(example_loss=(dims, losses)))
        return reduce(_joined, legs)

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
        start, trace = self.walkers.saved(), self._burnt_in(settings)
        for _ in range(0 if fixed_step else HALVINGS):
            smaller = self._unstable(trace, settings)
            if smaller is None:
                trace = self._until_first_look(trace, settings)
                smaller = self._hot(trace, settings) or self._pair(trace, settings)
            if smaller[0] == settings.lr:
                notes.append(smaller[1])
                break
            known = "relaxations" in trace.attrs
            if known and self._needed(replace(settings, lr=smaller[0])) > self.budget:
                notes.append(f"the budget left no room for a smaller ε, although {smaller[1]}")
                break
            settings.lr = smaller[0]
            notes.append(f"ε = {settings.lr:.3g}: lowered, because {smaller[1]}")
            self.walkers.restore(start)
            trace = self._burnt_in(settings)
        if "relaxations" not in trace.attrs:
            trace = self._until_first_look(trace, settings)
        while (width := self._width(trace, settings)) > precision or self._drifts(trace, settings):
            more = _draws(trace)
            if self.spent + more * self._gradients(settings) > self.budget:
                return trace, [*notes, f"the budget of {self.budget:,} gradients ended the draws"]
            trace = _joined(trace, self._kept(settings, more))
        return trace, [*notes, f"the interval is within ± {width:.1%}, as asked"]

    def _gradients(self, settings: Settings) -> int:
        """Returns the number of gradients in one step of all chains."""
        return self.count * (1 + settings.controlled)

    def _needed(self, settings: Settings) -> int:
        """Returns the least number of gradients at the first look, if the chains begin anew."""
        steps = settings.burn_in + _first_look(settings)
        return self.spent + steps * self._gradients(settings)

    def _burnt_in(self, settings: Settings) -> xr.Dataset:
        """Runs the burn-in and one draw."""
        if (needed := self._needed(settings)) > self.budget:
            problem = f"the first look at λ̂ needs {needed:,} gradients; raise it"
            raise ArgumentError(f"budget = {self.budget}: {problem}")
        return self.walk(settings, settings.burn_in, 1)

    def rung(self, settings: Settings, draws: int) -> xr.Dataset:
        """Returns the trace of chains that go on from where they are.

        The step is lowered to what is stable where the chains are. There are at least `draws`, and
        at least `RELAXATIONS` relaxation times of λ̂ unless the budget ends before.
        """
        start, trace = self.walkers.saved(), self.walk(settings, settings.burn_in, 1)
        for _ in range(HALVINGS):
            smaller = self._unstable(trace, settings)
            if smaller is None:
                break
            settings.lr = smaller[0]
            self.walkers.restore(start)
            trace = self.walk(settings, settings.burn_in, 1)
        return self._until_first_look(trace, settings, draws)

    def _until_first_look(
        self, trace: xr.Dataset, settings: Settings, least: int = 0
    ) -> xr.Dataset:
        """Runs the chains on until the first look, after `RELAXATIONS` relaxation times of λ̂."""
        trace = _joined(trace, self._kept(settings, (least or _first_look(settings)) - 1))
        while (draws := _draws(trace)) < RELAXATIONS * self._relaxation(trace, settings):
            if self.spent + draws * self._gradients(settings) > self.budget:
                break
            trace = _joined(trace, self._kept(settings, draws))
        return trace.assign_attrs(relaxations=RELAXATIONS)

    def _drifts(self, trace: xr.Dataset, settings: Settings) -> bool:
        """Returns whether λ̂ changes from the first half of the draws to the second."""
        values = estimators.controlled(trace, settings.nbeta, self.loss)
        return diagnostics.drift(posterior.alive(values))[1] < regimes.Limits().drift

    def _relaxation(self, trace: xr.Dataset, settings: Settings) -> float:
        """Returns the measured relaxation time of λ̂ in draws; 0 if no chain moves or is left."""
        draws_CxD = posterior.alive(estimators.controlled(trace, settings.nbeta, self.loss))
        relaxation = draws_CxD.size / diagnostics.ess(draws_CxD) / 2
        return relaxation if math.isfinite(relaxation) else 0.0

    def _unstable(self, trace: xr.Dataset, settings: Settings) -> tuple[float, str] | None:
        """Returns a smaller step and the reason if this one is not stable where the chains are."""
        if bool(trace.diverged.any()):
            return settings.lr / 2, "a chain diverged"
        if self.hessian_N is not None:
            highest = step_bias.highest(self.walkers, self.hessian_N, self.batch_size)
            stable = 1 / (settings.nbeta * highest + settings.localization)
            if settings.lr > 1.25 * stable:  # less is not worth another look
                where = f"nats where the chains are, {self.curvature.highest:.3g} at w*"
                return stable, f"the highest curvature is {highest:.3g} {where}"
        return None

    def _hot(self, trace: xr.Dataset, settings: Settings) -> tuple[float, str] | None:
        """Returns half the step and the reason if chains diverged or their temperature is high."""
        if bool(trace.diverged.any()):
            return settings.lr / 2, "a chain diverged"
        size = sum(self.walkers.task.sizes)
        value, error = posterior.temperature(trace, settings.localization, size)
        if value - 1 > max(3 * error, regimes.Limits().equilibrium):
            return settings.lr / 2, f"the temperature was {value:.3f}"
        return None

    def _pair(self, trace: xr.Dataset, settings: Settings) -> tuple[float, str]:
        """Compares ε with ε/2 on common noise; returns half the step if its bias is too large."""
        burn_in = math.ceil(PAIR * settings.relaxation)
        draws = max(burn_in, math.ceil(2 * RELAXATIONS * self._relaxation(trace, settings)))
        needed = 3 * (burn_in + draws) * self._gradients(settings)
        if self.spent + needed > self.budget:
            return settings.lr, f"the budget left no room to check ε = {settings.lr:.3g} by a pair"
        config, sampling = self.configured(settings, burn_in, draws)
        values = step_bias.difference(
            self.walkers, config, sampling, self.advance, controlled=settings.controlled
        )
        found = estimators.summarise(values)
        llc = estimators.summarise(estimators.controlled(trace, settings.nbeta, self.loss)).llc
        error = float(np.nanmax([found.standard_error, found.monte_carlo_error]))
        value, error = 2 * found.llc / abs(llc), 2 * error / abs(llc)
        told = f"the bias of ε = {settings.lr:.3g} is {value:.1%} ± {error:.1%} of λ̂, by a pair"
        small = abs(value) - 2 * error <= BIAS  # false if a chain diverged
        return settings.lr if small else settings.lr / 2, told

    def _width(self, trace: xr.Dataset, settings: Settings) -> float:
        values = estimators.controlled(trace, settings.nbeta, self.loss)
        result = estimators.summarise(values, halves=True)
        if result.diverged_chains == result.chains:
            raise ArgumentError("all chains diverged; lower lr, or raise localization")
        low, high = result.interval
        half = (high - low) / 2
        return half / abs(result.llc) if math.isfinite(half) else math.inf


def _first_look(settings: Settings) -> int:
    """Returns the least number of draws of a chain before the first look at its estimate."""
    return max(FEWEST, settings.relaxation)


def _draws(trace: xr.Dataset) -> int:
    return trace.sizes["draw"] - int((trace.draw < 0).sum())


def _joined(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """Joins the draws of two runs of the same chains."""
    end = int(first.draw[-1]) + 1
    moved = second.assign_coords(draw=np.arange(end, end + second.sizes["draw"]))
    diverged = first.diverged | second.diverged
    parts = [
        each.drop_vars(["diverged", "example_loss"], errors="ignore") for each in (first, moved)
    ]
    found = xr.concat(parts, "draw").assign(diverged=diverged)
    kept = [each.example_loss for each in (first, second) if "example_loss" in each]
    if kept:
        found = found.assign(example_loss=xr.concat(kept, "kept"))
    sampling = dict(first.attrs["sampling"]) | {"draws": end + second.sizes["draw"]}
    return found.assign_attrs(first.attrs | {"sampling": sampling})
