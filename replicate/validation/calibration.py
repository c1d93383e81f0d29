"""Is the sampler right? The same `sample`, `controlled` and `summarise` as for the language models,
on targets whose λ is known.

A `Case` is a target and how to sample it. Where λ̂ at a finite nβ is known to differ from λ it has
more than one `Plan`, and λ is extrapolated from that ladder of nβ. A `Job` is one plan, with one
repeat of all randomness, perhaps with a mistake in the sampler: it is what is computed, and the
records are made of the outcomes.

Step sizes keep ε·nβ·curvature below 0.1, unless the expected value takes the step into account.
Burn-in and draws follow the slowest direction that matters, at most 2/(εγ) steps. The regular
models have minibatches, whose noise adds a share of ε·nβ·curvature·(nβ + d)/4B to the variance of
the d weights, less than 1 %; the networks see all their examples at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from replicate.errors import UserError
from replicate.estimation import estimators
from replicate.progress import Advance
from replicate.sampling import Setting, Space, engine, sample
from replicate.seeds import derive
from replicate.study.records import Calibrated, Control, Coverage, Record, Rung
from replicate.validation.targets import (
    Bigram,
    DeepLinear,
    LinearRegression,
    NormalCrossing,
    Quadratic,
    Target,
)

Verdict = Literal["within 1 %", "within the interval", "within 5 %", "outside"]


@dataclass(frozen=True)
class Plan:
    nbeta: float
    setting: Setting
    burn_in: int
    draws: int
    batch_size: int = 1


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    target: Target
    plans: tuple[Plan, ...]


def sgld(
    nbeta: float, lr: float, localization: float, burn_in: int, draws: int, batch_size: int = 1
) -> Plan:
    return Plan(nbeta, Setting("sgld", lr, localization=localization), burn_in, draws, batch_size)


def crossing(orders: tuple[int, ...], name: str, eta: float) -> Case:
    """A product of weights with γ = 1: its greatest curvature is about 2·nβ, so that ε·2·nβ =
    `eta`, and 2/ε steps are one relaxation.
    """
    plans = []
    for nbeta in (1.0, 4.0, 16.0, 64.0):
        lr = min(eta / (2 * nbeta), 0.008)
        plans.append(sgld(nbeta, lr, 1.0, round(3 / lr), max(round(1.6 / lr), 2000)))
    return Case(f"1024 × {name}", "normal crossing", NormalCrossing(orders, 1024), tuple(plans))


def regression(
    inputs: int, hidden: int, outputs: int, rank: int, copies: int, plans: tuple[Plan, ...]
) -> Case:
    target = DeepLinear((inputs, hidden, outputs), rank, plans[0].batch_size, copies, 1.5)
    return Case(
        f"{copies} × {inputs}-{hidden}-{outputs}, rank {rank}",
        "reduced-rank regression",
        target,
        plans,
    )


def deep(widths: tuple[int, ...], rank: int, scale: float, plan: Plan, copies: int = 1) -> Case:
    name = f"{copies} × " * (copies > 1) + "-".join(map(str, widths)) + f", rank {rank}"
    return Case(
        name,
        "deep linear network",
        DeepLinear(widths, rank, plan.batch_size, copies, scale),
        (plan,),
    )


LADDER = (
    sgld(40, 4e-4, 5.0, 1200, 3000, 128),
    sgld(100, 1.7e-4, 5.0, 2600, 3500, 128),
    sgld(200, 8.6e-5, 5.0, 5200, 7000, 128),
)
LOCALISED = Case(
    "quadratic, localised", "quadratic", Quadratic(4000), (sgld(10, 0.02, 5.0, 60, 600),)
)
TARGETS = (
    Case(
        "linear regression",
        "regular",
        LinearRegression(100, 8192),
        (sgld(50, 0.001, 1.0, 200, 4000, 1024),),
    ),
    Case(
        "linear regression, RMSprop",
        "regular",
        LinearRegression(300, 4096, 4.0),
        (Plan(50, Setting("rmsprop", 4e-4, localization=1.0), 1500, 5000, 512),),
    ),
    Case("quadratic", "quadratic", Quadratic(4000), (sgld(10, 0.02, 0.0, 60, 600),)),
    Case("quadratic, large step", "quadratic", Quadratic(4000), (sgld(10, 0.1, 0.0, 30, 300),)),
    LOCALISED,
    Case(
        "quadratic, ill-conditioned",
        "quadratic",
        Quadratic(4000, 100.0),
        (sgld(100, 0.004, 0.0, 1250, 4000),),
    ),
    Case(
        "quadratic, ill-conditioned, localised",
        "quadratic",
        Quadratic(4000, 1000.0),
        (sgld(100, 0.002, 3.0, 800, 1500),),
    ),
    Case(
        "quadratic, SGNHT",
        "quadratic",
        Quadratic(4000, 10.0),
        (Plan(100, Setting("sgnht", 2e-4, diffusion=0.1), 1500, 2000),),
    ),
    Case(
        "1024 × w⁴",
        "normal crossing",
        NormalCrossing((2,), 1024),
        (sgld(10, 0.0015, 0.0, 1500, 4000),),
    ),
    Case(
        "1024 × w⁶",
        "normal crossing",
        NormalCrossing((3,), 1024),
        (sgld(10, 0.0015, 0.0, 1500, 4000),),
    ),
    crossing((1, 1), "w₁²w₂²", 0.08),
    crossing((1, 2), "w₁²w₂⁴", 0.05),
    crossing((1, 1, 1), "w₁²w₂²w₃²", 0.08),
    regression(4, 3, 4, 1, 16, LADDER),
    regression(4, 3, 5, 1, 16, LADDER),
    regression(4, 3, 16, 1, 8, (sgld(400, 2.4e-5, 7.0, 3500, 6000, 128),)),
    regression(16, 3, 4, 1, 8, (sgld(400, 2.4e-5, 7.0, 3500, 6000, 128),)),
    regression(3, 16, 3, 1, 8, (sgld(400, 2.4e-5, 7.0, 3500, 6000, 128),)),
    deep((6, 2, 12, 12), 1, 1.3, sgld(100, 6e-5, 4.0, 3000, 6000, 128), copies=4),
    deep((8, 100, 100, 8), 2, 1.15, sgld(2000, 3.5e-6, 60.0, 4000, 3000, 1024)),
    deep((10, 300, 300, 10), 3, 1.15, sgld(2000, 2.7e-6, 150.0, 2000, 1500, 1024)),
    deep((16, 1000, 1000, 16), 16, 1.2, sgld(1.3e4, 4e-7, 30.0, 100, 700, 1024)),
    Case(
        "4 × bigrams, rank 3",
        "bigram language model",
        Bigram(12, 3, 3, 4, 3.0),
        (sgld(4320, 1.5e-4, 1.0, 400, 6000),),
    ),
    Case(
        "4 × bigrams, rank 1",
        "bigram language model",
        Bigram(12, 3, 1, 4, 3.0),
        (
            sgld(576, 1.02e-3, 2.0, 1200, 4000),
            sgld(1728, 3.43e-4, 2.0, 3500, 3000),
            sgld(4032, 1.48e-4, 2.0, 8000, 6000),
        ),
    ),
)
REPEATED = Case(
    "linear regression, short chains",
    "regular",
    LinearRegression(10, 4096),
    (sgld(20, 0.02, 1.0, 20, 60, 512),),
)
CASES = {case.name: case for case in (*TARGETS, REPEATED)}

MISTAKES: dict[
    str, Callable[[Plan], Plan]
] = {  # each is the right sampler with other parameters: the same steps up to rounding
    "none": lambda plan: plan,
    "noise × 1.1": lambda plan: scaled(plan, lr=1.21, force=1 / 1.21),
    "step ε for ε/2": lambda plan: scaled(plan, lr=1.0, force=2.0),
    "no localisation": lambda plan: replace(plan, setting=replace(plan.setting, localization=0.0)),
}


def scaled(plan: Plan, lr: float, force: float) -> Plan:
    """The step size times `lr`, and nβ and γ, to which the drift is proportional, times `force`."""
    setting = replace(
        plan.setting, lr=plan.setting.lr * lr, localization=plan.setting.localization * force
    )
    return replace(plan, nbeta=plan.nbeta * force, setting=setting)


@dataclass(frozen=True)
class Job:
    case: str
    rung: int = 0
    repeat: int = 0
    mistake: str = "none"

    @property
    def plan(self) -> Plan:
        return CASES[self.case].plans[self.rung]

    @property
    def cost(self) -> float:
        """In steps of a small model, for the order of the work."""
        return (self.plan.burn_in + self.plan.draws) * (
            1 + CASES[self.case].target.parameters / 2.5e4
        )


class Outcome(Record):
    llc: float
    standard_error: float
    monte_carlo_error: float
    interval: tuple[float, float]
    rhat: float
    ess: float
    evaluations: int


def jobs(repeats: int) -> list[Job]:
    """All there is to compute, the longest first."""
    found = [Job(case.name, rung) for case in TARGETS for rung in range(len(case.plans))]
    found += [Job(REPEATED.name, repeat=repeat) for repeat in range(repeats)]
    found += [Job(LOCALISED.name, mistake=mistake) for mistake in MISTAKES]
    return sorted(dict.fromkeys(found), key=lambda job: -job.cost)


def measure(job: Job, seed: int, groups: int, chains: int, advance: Advance) -> Outcome:
    """λ̂ of one job.

    Raises:
        UserError: a chain left the finite.
    """
    plan, target = job.plan, CASES[job.case].target
    mistaken = MISTAKES[job.mistake](plan)
    where = ("calibration", job.case, job.rung, job.repeat)
    model = target.model(derive(seed, *where, "data"))
    losses_N = model.losses()
    trace = sample(
        Space(model.parameters),
        model.loss,
        losses_N,
        mistaken.setting,
        engine.Plan(mistaken.nbeta, plan.batch_size, groups, chains, plan.burn_in, plan.draws),
        order=lambda group: np.random.default_rng(derive(seed, *where, "order", group)).permutation(
            model.examples
        ),
        noise=lambda group, chain: derive(seed, *where, "noise", group, chain),
        advance=advance,
    )
    result = estimators.summarise(
        estimators.controlled(trace, plan.nbeta, float(losses_N.mean(dtype=np.float64)))
    )
    if result.failed_chains:
        raise UserError(
            f"calibration: {result.failed_chains} chains of {job.case!r} left the finite; lower the lr of its rung {job.rung}"
        )
    return Outcome(
        llc=result.llc,
        standard_error=result.standard_error,
        monte_carlo_error=result.monte_carlo_error,
        interval=result.interval,
        rhat=result.rhat,
        ess=result.ess,
        evaluations=trace.loss.size,
    )


def terms(target: Target, plan: Plan) -> tuple[float, float]:
    """What the theory has beside λ under this plan, D = `expected` − λ, and dD/d ln nβ."""
    width = 0.05
    below, there, above = (
        target.expected(plan.setting, plan.nbeta * np.exp(shift)) for shift in (-width, 0.0, width)
    )
    if below is None or there is None or above is None:
        raise ValueError(f"{target}: nothing is known of λ̂ at a finite nβ")
    return there - target.truth.llc, (above - below) / (2 * width)


def extrapolate(
    llcs_R: Sequence[float],
    errors_R: Sequence[float],
    terms_R: Sequence[tuple[float, float]],
    freedom: int,
) -> tuple[float, float, tuple[float, float]]:
    """λ, its standard error and 95 % interval from λ̂ on a ladder of nβ, by weighted least squares.

    λ̂(nβ) = λ + D(nβ·eᵇ), with λ and b fitted. D is made of the logarithms of the multiplicity, −(m
    − 1)/(ln nβ + a) + …, and of the powers of 1/nβ of the next poles (`terms`; `targets` derives
    them). b, the scale at which they set in, would be 0 if curvature and localisation were exactly
    the theory's; it is small, and D is taken to first order in it.

    `freedom`: degrees of freedom of each standard error; those of the result are Welch and
    Satterthwaite's, and its interval Student's.
    """
    error_R, (term_R, slope_R) = np.asarray(errors_R), np.transpose(terms_R)
    design_RxP = np.stack([np.ones_like(slope_R), slope_R], axis=1)
    solve_R = np.linalg.pinv(design_RxP / error_R[:, None])[
        0
    ]  # λ's share of each residual in standard errors
    llc, error = (
        float(solve_R @ ((np.asarray(llcs_R) - term_R) / error_R)),
        float(np.linalg.norm(solve_R)),
    )
    half = float(stats.t.ppf(0.975, freedom * error**4 / np.sum(solve_R**4))) * error
    return llc, error, (llc - half, llc + half)


def judge(llc: float, interval: tuple[float, float], reference: float) -> Verdict:
    off = abs(llc / reference - 1)
    if off <= 0.01:
        return "within 1 %"
    if interval[0] <= reference <= interval[1]:
        return "within the interval"
    return "within 5 %" if off <= 0.05 else "outside"


def exact(case: Case) -> float | None:
    """What a perfect sampler of this step size, nβ and localisation would find; None where it is
    not known, or λ is extrapolated.
    """
    plan = case.plans[0]
    return (
        case.target.expected(plan.setting, plan.nbeta)
        if case.target.exact and len(case.plans) == 1
        else None
    )


def reference(case: Case) -> float:
    """What λ̂ is judged against."""
    value = exact(case)
    return case.target.truth.llc if value is None else value


def calibrated(case: Case, outcomes: Sequence[Outcome], groups: int) -> Calibrated:
    """The record of a case from the outcome of each of its plans."""
    target = case.target
    llc, error, interval, ladder = (
        outcomes[0].llc,
        outcomes[0].standard_error,
        outcomes[0].interval,
        [],
    )
    if len(outcomes) > 1:
        llcs = [outcome.llc for outcome in outcomes]
        errors = [max(outcome.standard_error, outcome.monte_carlo_error) for outcome in outcomes]
        llc, error, interval = extrapolate(
            llcs, errors, [terms(target, plan) for plan in case.plans], groups - 1
        )
        ladder = [
            Rung(
                nbeta=plan.nbeta,
                llc=x,
                standard_error=e,
                expected=target.expected(plan.setting, plan.nbeta),
            )
            for plan, x, e in zip(case.plans, llcs, errors, strict=True)
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


def covered(outcomes: Sequence[Outcome]) -> Coverage:
    """How many of the repeats' intervals hold what the very sampler should find."""
    truth = reference(REPEATED)
    hits = sum(low <= truth <= high for low, high in (outcome.interval for outcome in outcomes))
    low, high = stats.binomtest(hits, len(outcomes)).proportion_ci(method="wilson")
    return Coverage(
        target=REPEATED.name,
        true_llc=truth,
        repeats=len(outcomes),
        covered=hits,
        share=hits / len(outcomes),
        interval=(float(low), float(high)),
    )


def control(mistake: str, outcome: Outcome) -> Control:
    """Caught is what is not within 1 % of what the right sampler should find."""
    expected = reference(LOCALISED)
    return Control(
        mistake=mistake,
        target=LOCALISED.name,
        expected=expected,
        llc=outcome.llc,
        standard_error=outcome.standard_error,
        caught=judge(outcome.llc, outcome.interval, expected) != "within 1 %",
    )
