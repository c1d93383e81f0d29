"""Wrong samplers are caught, right ones are not, and extrapolation finds λ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy import special

from replicate.errors import UserError
from replicate.progress import silent
from replicate.study import records
from replicate.validation import calibration, cases
from replicate.validation.calibration import Outcome
from replicate.validation.cases import CASES, CONTROLS, LOCALISED, REPEATED, TARGETS, Case, Job
from replicate.validation.targets import Bigram, DeepLinear


def measure(job: Job) -> Outcome:
    return calibration.measure(job, seed=5, shuffles=4, chains=2, advance=silent)


def outcome(llc: float, error: float) -> Outcome:
    interval = llc - 3.18 * error, llc + 3.18 * error
    return Outcome(llc, error, error, interval, rhat=1.0, ess=100.0, evaluations=1000)


def test_targets_span_the_kinds_and_the_sizes() -> None:
    assert len({case.name for case in TARGETS}) == len(TARGETS) >= 18
    linear = [case.target for case in TARGETS if isinstance(case.target, DeepLinear)]
    sizes = [target.parameters // target.copies for target in linear]
    assert min(sizes) < 300
    assert max(sizes) > 1_000_000


def test_regressions_cover_the_four_cases_of_the_theorem() -> None:
    found = set()
    for case in TARGETS:
        if case.kind == "reduced-rank regression" and isinstance(case.target, DeepLinear):
            (m, h, n), r = case.target.widths, case.target.rank
            wide = [m + h < n + r, n + h < m + r, m + n < h + r]
            found.add(wide.index(True) if any(wide) else f"parity {(m + h + n + r) % 2}")
    assert found == {0, 1, 2, "parity 0", "parity 1"}


def test_a_case_without_a_ladder_has_its_llc_at_its_own_nbeta() -> None:
    """Theory puts λ̂ within 2 % of λ, if theory has a value that is not itself the reference."""
    for case in TARGETS:
        value = case.target.expected(case.runs[0].sampler, case.runs[0].nbeta)
        if len(case.runs) == 1 and not case.target.exact and value is not None:
            assert value == pytest.approx(case.target.truth.llc, rel=0.02), case.name


W = np.exp(np.linspace(-12, np.log(9), 20_001))  # a grid for integrals over ln w, w > 0


def two_weights(t: Any, gamma: float) -> Any:
    x = gamma**2 / (8 * t)
    return 0.5 + x - x * special.k1e(x) / special.k0e(x)


def one_and_two(t: float, gamma: float) -> float:
    """λ̂ of v²w⁴, with v integrated out."""
    stiffness = 2 * t * W**4 + gamma
    density = np.exp(-gamma * W**2 / 2) / np.sqrt(stiffness)
    return float(np.average(t * W**4 / stiffness, weights=W * density))


def three_weights(t: float, gamma: float) -> float:
    """λ̂ of u²v²w² as an average of that of u²v² over w, in the free energy's derivative."""
    x = gamma**2 / (8 * t * W**2)
    density = np.exp(-gamma * W**2 / 2) * special.k0e(x) * np.sqrt(x)
    return float(np.average(two_weights(t * W**2, gamma), weights=W * density))


@pytest.mark.parametrize(
    ("name", "value"),
    [("w₁²w₂²", two_weights), ("w₁²w₂⁴", one_and_two), ("w₁²w₂²w₃²", three_weights)],
)
@pytest.mark.parametrize("gamma", [1.0, 1.3])
def test_extrapolation_finds_the_llc_from_exact_values(
    name: str, value: Callable[[float, float], float], gamma: float
) -> None:
    """The values come from another integration; a γ that the theory is not told does not matter."""
    case = CASES[f"1024 × {name}"]
    fine = [replace(run, sampler=replace(run.sampler, lr=1e-12)) for run in case.runs]
    llcs = [1024 * value(run.nbeta, gamma) for run in fine]
    errors = [0.005 * llc for llc in llcs]
    terms = [calibration.terms(case.target, run) for run in fine]
    llc, _, _ = calibration.extrapolate(llcs, errors, terms, 3)
    assert llc == pytest.approx(case.target.truth.llc, rel=0.002 if gamma == 1 else 0.02)
    assert abs(llcs[-1] / case.target.truth.llc - 1) > 0.15  # what there was to extrapolate


@pytest.mark.parametrize("name", ["16 × 4-3-4, rank 1", "16 × 4-3-5, rank 1"])
def test_extrapolation_of_a_regression_from_random_matrices(name: str) -> None:
    """A of the surplus is sampled from its prior, and the true part is known to be regular."""
    case = CASES[name]
    assert isinstance(case.target, DeepLinear)
    inputs, hidden, outputs = (width - 1 for width in case.target.widths)
    a = np.random.default_rng(0).standard_normal((100_000, hidden, inputs))
    x = np.linalg.eigvalsh(a @ a.transpose(0, 2, 1))
    llcs = []
    for run in case.runs:
        gamma, curvature = run.sampler.localization, run.nbeta * case.target.scale**2
        t = run.nbeta / gamma**2
        weight = np.exp(-outputs / 2 * np.log1p(t * x).sum(1))
        surplus = np.average((outputs / 2 * t * x / (1 + t * x)).sum(1), weights=weight)
        regular = curvature / (2 * curvature + gamma)
        regular += (inputs + outputs) / 2 * curvature / (curvature + gamma)
        llcs.append(16 * (surplus + regular))
    terms = [calibration.terms(case.target, run) for run in case.runs]
    llc, _, _ = calibration.extrapolate(llcs, llcs, terms, 3)
    assert llc == pytest.approx(case.target.truth.llc, rel=0.02)


def test_extrapolation_weighs_by_the_errors_and_counts_the_freedom() -> None:
    """Two points determine the line λ + b·slope + term. Its variance is the sum of two, and its
    freedom lies between that of one point and of both.
    """
    terms = [(-2.0, 1.0), (-1.0, 0.5)]
    llc, error, (low, high) = calibration.extrapolate([8.0, 9.0], [0.1, 0.1], terms, 3)
    assert llc == pytest.approx(10.0)
    assert error == pytest.approx(0.1 * np.sqrt(1 + 4))  # λ = 2·(second) − (first), without terms
    freedom = 3 * 5**2 / (1 + 16)
    assert (high - low) / 2 / error == pytest.approx(special.stdtrit(freedom, 0.975))


@pytest.mark.parametrize(
    ("llc", "half", "verdict"),
    [
        (100.9, 0.0, "within 1 %"),
        (103, 3.2, "within the interval"),
        (96, 0.3, "within 5 %"),
        (106, 0.3, "outside"),
    ],
)
def test_verdicts(llc: float, half: float, verdict: str) -> None:
    assert calibration.judge(llc, (llc - half, llc + half), 100.0) == verdict


def test_right_samplers_find_exact_values_and_wrong_ones_are_caught() -> None:
    """λ itself is far from both exact values."""
    job = Job("quadratic, large step")
    found = calibration.calibrated(CASES[job.case], [measure(job)], 4)
    assert found.verdict == "within 1 %"
    assert found.exact is not None
    assert abs(found.exact / found.true_llc - 1) > 0.2
    caught = {
        control: calibration.controlled(control, measure(Job(LOCALISED.name, control=control)))
        for control in CONTROLS
    }
    assert not caught.pop("none").caught
    assert len(caught) == 3
    assert all(control.caught for control in caught.values()), caught


def test_negative_controls_are_what_they_are_called() -> None:
    """The stationary variance of w ← (1 − d)·w + s·noise is s²/(1 − (1 − d)²)."""
    (run,) = LOCALISED.runs
    eps, gamma, t = run.sampler.lr, run.sampler.localization, run.nbeta
    steps = {
        "none": (eps / 2 * (t + gamma), np.sqrt(eps)),
        "noise × 1.1": (eps / 2 * (t + gamma), 1.1 * np.sqrt(eps)),
        "step ε for ε/2": (eps * (t + gamma), np.sqrt(eps)),
        "no localisation": (eps / 2 * t, np.sqrt(eps)),
    }
    assert steps.keys() == CONTROLS.keys()
    for control, (drift, noise) in steps.items():
        wrong = Job(LOCALISED.name, control=control).controlled
        found = LOCALISED.target.expected(wrong.sampler, wrong.nbeta)
        variance = noise**2 / (1 - (1 - drift) ** 2)
        assert found is not None
        assert found * t / wrong.nbeta == pytest.approx(2000 * t * variance)


def test_a_rung_of_a_ladder_is_where_quadrature_puts_it() -> None:
    case = CASES["1024 × w₁²w₂²"]
    found = measure(Job(case.name, rung=1))
    expected = case.target.expected(case.runs[1].sampler, case.runs[1].nbeta)
    assert expected is not None
    assert found.llc == pytest.approx(expected, rel=0.03)
    assert found.llc < 0.6 * case.target.truth.llc


def test_intervals_of_short_chains_hold_the_truth() -> None:
    """Fewer than 20 hits of 24 repeats have a chance of 1 % if each has 95 %."""
    repeats = [measure(Job(REPEATED.name, repeat=repeat)).interval for repeat in range(24)]
    truth = calibration.reference(REPEATED)
    assert sum(low <= truth <= high for low, high in repeats) >= 20


def test_the_conclusions_need_every_job_and_are_what_is_published() -> None:
    """The longest jobs come first, so that they do not end last."""
    everything = cases.jobs(TARGETS)
    costs = [job.cost for job in everything]
    assert costs == sorted(costs, reverse=True)
    outcomes = {job: outcome(100.0, 1.0) for job in everything}
    known, controls = calibration.conclude(outcomes, TARGETS, 4)
    assert [target.target for target in known] == [case.name for case in TARGETS]
    assert [control.control for control in controls] == list(CONTROLS)
    pairs = [(records.Calibrated, row) for row in known]
    pairs += [(records.NegativeControl, row) for row in controls]
    for kind, row in pairs:
        assert kind(**asdict(row)).model_dump() == asdict(row)
    del outcomes[everything[-1]]
    with pytest.raises(KeyError):
        calibration.conclude(outcomes, TARGETS, 4)


def test_a_calibration_may_take_some_targets_alone() -> None:
    names = ["linear regression", "1024 × w⁴"]
    chosen = cases.targets(names)
    assert [case.name for case in chosen] == names
    assert {job.case for job in cases.jobs(chosen)} == {*names, LOCALISED.name}
    assert cases.targets("all") == TARGETS
    with pytest.raises(UserError, match=r"'w⁵' is no target of known λ; write some of "):
        cases.targets(["w⁵"])


def test_a_chain_that_diverges_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = LOCALISED.runs
    wild = replace(run, sampler=replace(run.sampler, lr=10.0))
    monkeypatch.setitem(CASES, "wild", Case("wild", "quadratic", LOCALISED.target, (wild,)))
    with pytest.raises(UserError, match=r"8 chains of 'wild' diverged; lower the lr of its run 0"):
        measure(Job("wild"))


def test_nothing_is_extrapolated_without_a_theory() -> None:
    (run,) = LOCALISED.runs
    with pytest.raises(ValueError, match="nothing is known"):
        calibration.terms(DeepLinear((2, 3, 3, 2), 1, 10), run)
    assert np.isfinite(calibration.terms(Bigram(6, 2, 1, 1, 3.0), run)).all()
