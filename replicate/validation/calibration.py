"""Checks the sampler: estimates λ̂ of targets whose λ is known, and compares the two.

The chains, the estimator (`controlled`) and its summary are computed by the same code as for
language models. `measure` computes one job of `cases`, and the other functions judge the outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from replicate.errors import UserError
from replicate.estimation import estimators
from replicate.progress import Advance
from replicate.sampling import SamplingConfig, sample
from replicate.seeds import derive
from replicate.validation.cases import CASES, CONTROLS, LOCALISED, Case, Job, Run
from replicate.validation.targets import Target

Accuracy = Literal["within 1 %", "within the interval", "within 5 %", "outside"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """Holds λ̂ of one job; `evaluations` is the number of steps of all chains together."""

    llc: float
    standard_error: float
    monte_carlo_error: float
    interval: Interval
    rhat: float
    ess: float
    evaluations: int


@dataclass(frozen=True)
class Rung:
    """Holds λ̂ of a target at one nβ; `expected` is the value by theory, or None if unknown."""

    nbeta: float
    llc: float
    standard_error: float
    expected: float | None


@dataclass(frozen=True)
class Calibrated:
    """Holds λ̂ of a target and its known λ.

    Attributes:
        true_llc: λ.
        multiplicity: m of λ.
        exact: the λ̂ that a perfect sampler would give at this step size and localisation; None if
            it is unknown or λ is extrapolated.
        llc: λ̂ of the only run, or λ as extrapolated from the `ladder`.
        standard_error: the standard error of `llc`, whose 95 % interval is `interval`.
        rhat: the largest R-hat of all runs.
        ess: the effective draws of all runs together.
        evaluations: the number of steps of all chains of all runs.
        ladder: λ̂ at each nβ; empty if there is only one run.
        verdict: how close `llc` is to `exact`, or to λ if `exact` is None.
    """

    target: str
    kind: str
    parameters: int
    true_llc: float
    multiplicity: int
    exact: float | None
    llc: float
    standard_error: float
    interval: Interval
    rhat: float
    ess: float
    evaluations: int
    ladder: list[Rung]
    verdict: Accuracy


@dataclass(frozen=True)
class NegativeControl:
    """Holds λ̂ of a sampler that is wrong on purpose.

    `expected` is the λ̂ of the correct sampler. `caught` says whether `llc` is more than 1 % off.
    """

    control: str
    target: str
    expected: float
    llc: float
    standard_error: float
    caught: bool


def measure(job: Job, seed: int, shuffles: int, chains: int, advance: Advance) -> Outcome:
    """Estimates λ̂ of one job.

    Args:
        job: a run of a case, and the negative control that changes it, if any.
        seed: the seed from which all seeds of the job are derived.
        shuffles: the number of random orders of the examples.
        chains: the number of chains in each shuffle.
        advance: is told how many more steps are done.

    Raises:
        UserError: a chain diverged.
    """
    run, wrong, where = job.run, job.controlled, ("calibration", job.case, job.rung, job.repeat)
    model = CASES[job.case].target.model(derive(seed, *where, "data"))
    losses_N = model.losses()

    def order(shuffle: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(derive(seed, *where, "order", shuffle))
        return rng.permutation(model.examples)

    trace = sample(
        model,
        wrong.sampler,
        SamplingConfig(wrong.nbeta, run.batch_size, shuffles, chains, run.burn_in, run.draws),
        losses_N,
        order=order,
        noise=lambda shuffle, chain: derive(seed, *where, "noise", shuffle, chain),
        advance=advance,
    )
    baseline = float(losses_N.mean(dtype=np.float64))
    result = estimators.summarise(estimators.controlled(trace, run.nbeta, baseline))
    if result.diverged_chains:
        problem = f"{result.diverged_chains} chains of {job.case!r} diverged"
        raise UserError(f"calibration: {problem}; lower the lr of its run {job.rung}")
    same = ("llc", "standard_error", "monte_carlo_error", "interval", "rhat", "ess")
    found = {name: getattr(result, name) for name in same}
    return Outcome(**found, evaluations=trace.loss.size)


def terms(target: Target, run: Run) -> tuple[float, float]:
    """Returns D = `expected` − λ, by which λ̂ differs from λ in this run, and dD/d ln nβ.

    Raises:
        ValueError: `expected` is unknown.
    """
    width = 0.05
    below, there, above = (
        target.expected(run.sampler, run.nbeta * np.exp(shift)) for shift in (-width, 0.0, width)
    )
    if below is None or there is None or above is None:
        raise ValueError(f"{target}: nothing is known of λ̂ at a finite nβ")
    return there - target.truth.llc, (above - below) / (2 * width)


def extrapolate(
    llcs_R: Sequence[float],
    errors_R: Sequence[float],
    terms_R: Sequence[tuple[float, float]],
    freedom: int,
) -> tuple[float, float, Interval]:
    """Extrapolates λ from λ̂ on a ladder of R values of nβ, by weighted least squares.

    The model is λ̂(nβ) = λ + D(nβ·eᵇ), and λ and b are fitted. D consists of logarithmic terms due
    to the multiplicity, −(m − 1)/(ln nβ + a) + …, and of powers of 1/nβ due to the next poles (see
    `theory`). b shifts the scale of nβ. It would be 0 if curvature and localisation were exactly
    those of the theory. It is small, so D is expanded to first order in b.

    Args:
        llcs_R: λ̂ of each run.
        errors_R: their standard errors.
        terms_R: what `terms` returns.
        freedom: the degrees of freedom of each standard error. The formula of Welch and
            Satterthwaite combines them into those of the result, for a Student's t interval.

    Returns:
        λ, its standard error and its 95 % interval.
    """
    error_R, (term_R, slope_R) = np.asarray(errors_R), np.transpose(terms_R)
    design_RxP = np.stack([np.ones_like(slope_R), slope_R], axis=1)
    # λ's weights for the runs' λ̂ − D in units of their standard errors
    share_R = np.linalg.pinv(design_RxP / error_R[:, None])[0]
    llc = float(share_R @ ((np.asarray(llcs_R) - term_R) / error_R))
    error = float(np.linalg.norm(share_R))
    half = float(stats.t.ppf(0.975, freedom * error**4 / np.sum(share_R**4))) * error
    return llc, error, (llc - half, llc + half)


def judge(llc: float, interval: Interval, reference: float) -> Accuracy:
    """Returns how close an estimate is to a reference, or whether its interval contains it."""
    off = abs(llc / reference - 1)
    if off <= 0.01:
        return "within 1 %"
    if interval[0] <= reference <= interval[1]:
        return "within the interval"
    return "within 5 %" if off <= 0.05 else "outside"


def exact(case: Case) -> float | None:
    """Returns the λ̂ that a perfect sampler would give at this step size, nβ and localisation.

    It is None if this value is unknown, or if λ is extrapolated.
    """
    run = case.runs[0]
    known = case.target.exact and len(case.runs) == 1
    return case.target.expected(run.sampler, run.nbeta) if known else None


def reference(case: Case) -> float:
    """Returns the value with which λ̂ is compared: `exact`, or λ if `exact` is None."""
    value = exact(case)
    return case.target.truth.llc if value is None else value


def calibrated(case: Case, outcomes: Sequence[Outcome], shuffles: int) -> Calibrated:
    """Compares λ̂ of a case with its λ.

    Args:
        case: the case.
        outcomes: the outcome of each of its runs, in their order.
        shuffles: the number of shuffles of each run.
    """
    target, first = case.target, outcomes[0]
    llc, error, interval = first.llc, first.standard_error, first.interval
    ladder = []
    if len(outcomes) > 1:
        llcs = [outcome.llc for outcome in outcomes]
        errors = [max(outcome.standard_error, outcome.monte_carlo_error) for outcome in outcomes]
        known = [terms(target, run) for run in case.runs]
        llc, error, interval = extrapolate(llcs, errors, known, shuffles - 1)
        ladder = [
            Rung(run.nbeta, x, e, target.expected(run.sampler, run.nbeta))
            for run, x, e in zip(case.runs, llcs, errors, strict=True)
        ]
    return Calibrated(
        target=case.name,
        kind=case.kind,
        parameters=target.parameters,
        true_llc=target.truth.llc,
        multiplicity=target.truth.multiplicity,
        exact=exact(case),
        llc=llc,
        standard_error=error,
        interval=interval,
        rhat=max(outcome.rhat for outcome in outcomes),
        ess=sum(outcome.ess for outcome in outcomes),
        evaluations=sum(outcome.evaluations for outcome in outcomes),
        ladder=ladder,
        verdict=judge(llc, interval, reference(case)),
    )


def controlled(control: str, outcome: Outcome) -> NegativeControl:
    """Judges the outcome of a negative control by the rule for the correct sampler."""
    expected = reference(LOCALISED)
    caught = judge(outcome.llc, outcome.interval, expected) != "within 1 %"
    found = outcome.llc, outcome.standard_error
    return NegativeControl(control, LOCALISED.name, expected, *found, caught)


def conclude(
    outcomes: Mapping[Job, Outcome], cases: Sequence[Case], shuffles: int
) -> tuple[list[Calibrated], list[NegativeControl]]:
    """Judges the outcomes of all jobs that `cases.jobs` returns for these cases.

    Returns:
        The targets and the negative controls.
    """
    targets = [calibrated(case, [outcomes[job] for job in case.jobs], shuffles) for case in cases]
    controls = [
        controlled(control, outcomes[Job(LOCALISED.name, control=control)]) for control in CONTROLS
    ]
    return targets, controls
