"""Defines what the calibration runs: targets, how each is sampled, and negative controls.

Step sizes keep ε·nβ·curvature below 0.1, unless the expected value includes their effect. The
burn-in and the number of draws suit the slowest direction that matters, which takes at most 2/(εγ)
steps to relax. The regular models use minibatches of B examples. The noise of the minibatches
increases the variance of the d weights by a fraction ε·nβ·curvature·(nβ + d)/4B, which is less than
1 %. The networks use all their examples at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from replicate.errors import UserError
from replicate.sampling import SamplerConfig
from replicate.validation.targets import (
    Bigram,
    DeepLinear,
    LinearRegression,
    NormalCrossing,
    Quadratic,
    Target,
)


@dataclass(frozen=True)
class Run:
    """Says how a target is sampled at one nβ."""

    nbeta: float
    sampler: SamplerConfig
    burn_in: int
    draws: int
    batch_size: int = 1


@dataclass(frozen=True)
class Case:
    """Holds a target and its runs.

    With one run, its λ̂ is compared with the value that theory gives at this nβ, or with λ. With
    several runs, a ladder of values of nβ, λ is extrapolated from them.
    """

    name: str
    kind: str
    target: Target
    runs: tuple[Run, ...]

    @property
    def jobs(self) -> list[Job]:
        """The jobs of the runs, with the correct sampler."""
        return [Job(self.name, rung) for rung in range(len(self.runs))]


def _sgld(
    nbeta: float, lr: float, localization: float, burn_in: int, draws: int, batch_size: int = 1
) -> Run:
    sampler = SamplerConfig("sgld", lr, localization=localization)
    return Run(nbeta, sampler, burn_in, draws, batch_size)


def _regular(name: str, target: LinearRegression, run: Run) -> Case:
    return Case(name, "regular", target, (run,))


def _quadratic(name: str, condition: float, run: Run) -> Case:
    return Case(f"quadratic{name}", "quadratic", Quadratic(4000, condition), (run,))


def _crossing(name: str, orders: tuple[int, ...], runs: tuple[Run, ...]) -> Case:
    return Case(f"1024 × {name}", "normal crossing", NormalCrossing(orders, 1024), runs)


def _linear(widths: tuple[int, ...], rank: int, scale: float, *runs: Run, copies: int = 1) -> Case:
    name = f"{copies} × " * (copies > 1) + "-".join(map(str, widths)) + f", rank {rank}"
    kind = "reduced-rank regression" if len(widths) == 3 else "deep linear network"
    return Case(name, kind, DeepLinear(widths, rank, runs[0].batch_size, copies, scale), runs)


def _bigrams(rank: int, *runs: Run) -> Case:
    name = f"4 × bigrams, rank {rank}"
    return Case(name, "bigram language model", Bigram(12, 3, rank, 4, 3.0), runs)


def _ladder(eta: float) -> tuple[Run, ...]:
    """Returns runs for a product of weights, with γ = 1 and several nβ.

    The largest curvature of nβ·K is about 2·nβ. ε is such that ε·2·nβ = `eta`, but at most 0.008. A
    relaxation takes 2/ε steps.
    """
    runs = []
    for nbeta in (1.0, 4.0, 16.0, 64.0):
        lr = min(eta / (2 * nbeta), 0.008)
        runs.append(_sgld(nbeta, lr, 1.0, round(3 / lr), max(round(1.6 / lr), 2000)))
    return tuple(runs)


_LADDER = (
    _sgld(40, 4e-4, 5.0, 1200, 3000, 128),
    _sgld(100, 1.7e-4, 5.0, 2600, 3500, 128),
    _sgld(200, 8.6e-5, 5.0, 5200, 7000, 128),
)
_BIGRAM_LADDER = (
    _sgld(576, 1.02e-3, 2.0, 1200, 4000),
    _sgld(1728, 3.43e-4, 2.0, 3500, 3000),
    _sgld(4032, 1.48e-4, 2.0, 8000, 6000),
)
_REGULAR = _sgld(50, 0.001, 1.0, 200, 4000, 1024)
_SHORT = _sgld(20, 0.02, 1.0, 20, 60, 512)
_POWER = (_sgld(10, 0.0015, 0.0, 1500, 4000),)
_WIDE = _sgld(400, 2.4e-5, 7.0, 3500, 6000, 128)
_RMSPROP = Run(50, SamplerConfig("rmsprop", 4e-4, localization=1.0), 1500, 5000, 512)
_SGNHT = Run(100, SamplerConfig("sgnht", 2e-4, diffusion=0.1), 1500, 2000)

LOCALISED = _quadratic(", localised", 1.0, _sgld(10, 0.02, 5.0, 60, 600))
TARGETS = (
    _regular("linear regression", LinearRegression(100, examples=8192), _REGULAR),
    _regular("linear regression, RMSprop", LinearRegression(300, 4.0, examples=4096), _RMSPROP),
    _quadratic("", 1.0, _sgld(10, 0.02, 0.0, 60, 600)),
    _quadratic(", large step", 1.0, _sgld(10, 0.1, 0.0, 30, 300)),
    LOCALISED,
    _quadratic(", ill-conditioned", 100.0, _sgld(100, 0.004, 0.0, 1250, 4000)),
    _quadratic(", ill-conditioned, localised", 1000.0, _sgld(100, 0.002, 3.0, 800, 1500)),
    _quadratic(", SGNHT", 10.0, _SGNHT),
    _crossing("w⁴", (2,), _POWER),
    _crossing("w⁶", (3,), _POWER),
    _crossing("w₁²w₂²", (1, 1), _ladder(0.08)),
    _crossing("w₁²w₂⁴", (1, 2), _ladder(0.05)),
    _crossing("w₁²w₂²w₃²", (1, 1, 1), _ladder(0.08)),
    _linear((4, 3, 4), 1, 1.5, *_LADDER, copies=16),
    _linear((4, 3, 5), 1, 1.5, *_LADDER, copies=16),
    _linear((4, 3, 16), 1, 1.5, _WIDE, copies=8),
    _linear((16, 3, 4), 1, 1.5, _WIDE, copies=8),
    _linear((3, 16, 3), 1, 1.5, _WIDE, copies=8),
    _linear((6, 2, 12, 12), 1, 1.3, _sgld(100, 6e-5, 4.0, 3000, 6000, 128), copies=4),
    _linear((8, 100, 100, 8), 2, 1.15, _sgld(2000, 3.5e-6, 60.0, 4000, 3000, 1024)),
    _linear((10, 300, 300, 10), 3, 1.15, _sgld(2000, 2.7e-6, 150.0, 2000, 1500, 1024)),
    _linear((16, 1000, 1000, 16), 16, 1.2, _sgld(1.3e4, 4e-7, 30.0, 100, 700, 1024)),
    _bigrams(3, _sgld(4320, 1.5e-4, 1.0, 400, 6000)),
    _bigrams(1, *_BIGRAM_LADDER),
)
REPEATED = _regular("linear regression, short chains", LinearRegression(10, examples=4096), _SHORT)
CASES = {case.name: case for case in (*TARGETS, REPEATED)}

# Each wrong sampler is simulated by the correct one with ε, nβ and γ multiplied by these factors:
# its steps then equal those of the wrong sampler up to rounding.
CONTROLS = {
    "none": (1.0, 1.0, 1.0),
    "noise × 1.1": (1.21, 1 / 1.21, 1 / 1.21),
    "step ε for ε/2": (1.0, 2.0, 2.0),
    "no localisation": (1.0, 1.0, 0.0),
}


@dataclass(frozen=True)
class Job:
    """Identifies a unit of the calibration: one run of a case.

    Attributes:
        case: the name of the case.
        rung: the index of the run in the case.
        repeat: the number of the repeat; each repeat has its own random numbers.
        control: the name of a negative control; *none* for the correct sampler.
    """

    case: str
    rung: int = 0
    repeat: int = 0
    control: str = "none"

    @property
    def run(self) -> Run:
        """How the correct sampler samples the target."""
        return CASES[self.case].runs[self.rung]

    @property
    def controlled(self) -> Run:
        """How the target is sampled: `run`, changed by the negative control."""
        run, (lr, nbeta, gamma) = self.run, CONTROLS[self.control]
        sampler = run.sampler
        sampler = replace(sampler, lr=lr * sampler.lr, localization=gamma * sampler.localization)
        return replace(run, nbeta=nbeta * run.nbeta, sampler=sampler)

    @property
    def cost(self) -> float:
        """The approximate work, by which jobs are sorted; a step of a small model has work 1."""
        parameters = CASES[self.case].target.parameters
        return (self.run.burn_in + self.run.draws) * (1 + parameters / 2.5e4)


def targets(names: Sequence[str] | Literal["all"]) -> tuple[Case, ...]:
    """Returns the named cases, or all of them, in the order of `TARGETS`.

    Raises:
        UserError: a name is not that of a target.
    """
    known = [case.name for case in TARGETS]
    unknown = [name for name in names if name not in known] if names != "all" else []
    if unknown:
        raise UserError(f"{unknown[0]!r} is no target of known λ; write some of {known}, or all")
    return tuple(case for case in TARGETS if names == "all" or case.name in names)


def jobs(cases: Sequence[Case]) -> list[Job]:
    """Returns the jobs of the cases and of the negative controls, the longest first."""
    found = [job for case in cases for job in case.jobs]
    found += [Job(LOCALISED.name, control=control) for control in CONTROLS]
    return sorted(dict.fromkeys(found), key=lambda job: -job.cost)
