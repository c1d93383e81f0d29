"""The calibration: wrong samplers are caught, right ones are not; extrapolation finds λ; the stage
resumes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, special

from replicate.pipeline import cache as kept
from replicate.pipeline import config as params
from replicate.pipeline.config import Calibration
from replicate.pipeline.stages import calibrate
from replicate.study.records import Calibrated, Control, Coverage, read
from replicate.validation import calibration
from replicate.validation.calibration import (
    CASES,
    LOCALISED,
    MISTAKES,
    REPEATED,
    TARGETS,
    Case,
    Job,
    Outcome,
    Plan,
)
from replicate.validation.targets import Bigram, DeepLinear, NormalCrossing
from tests.conftest import ROOT

SEED = 5


def measure(job: Job, groups: int = 4, chains: int = 2) -> Outcome:
    return calibration.measure(job, SEED, groups, chains, lambda steps=1, note="": None)


def outcome(llc: float, error: float) -> Outcome:
    interval = (llc - 3.18 * error, llc + 3.18 * error)
    return Outcome(
        llc=llc,
        standard_error=error,
        monte_carlo_error=error,
        interval=interval,
        rhat=1.0,
        ess=100.0,
        evaluations=1000,
    )


def test_targets_span_the_kinds_and_the_sizes() -> None:
    assert len({case.name for case in TARGETS}) == len(TARGETS) >= 18
    kinds = {
        kind: [case for case in TARGETS if case.kind == kind]
        for kind in {case.kind for case in TARGETS}
    }
    assert len(kinds["quadratic"]) >= 3
    assert (
        max(
            2 * sum(case.target.orders)
            for case in kinds["normal crossing"]
            if isinstance(case.target, NormalCrossing)
        )
        == 6
    )
    sizes = [
        case.target.parameters // case.target.copies
        for case in kinds["deep linear network"]
        if isinstance(case.target, DeepLinear)
    ]
    assert min(sizes) < 300
    assert max(sizes) > 1_000_000
    assert len(sizes) >= 4


def test_regressions_cover_the_four_cases_of_the_theorem() -> None:
    found = set()
    for case in TARGETS:
        if case.kind == "reduced-rank regression" and isinstance(case.target, DeepLinear):
            (m, h, n), r = case.target.widths, case.target.rank
            wide = [m + h < n + r, n + h < m + r, m + n < h + r]
            found.add(
                wide.index(True) + 2
                if any(wide)
                else ("1, even" if (m + h + n + r) % 2 == 0 else "1, odd")
            )
    assert found == {"1, even", "1, odd", 2, 3, 4}


def test_a_case_without_a_ladder_has_its_llc_at_its_own_nbeta() -> None:
    """Within 2 %, by theory, wherever theory has a value that is not itself what the estimate is
    judged against.
    """
    for case in TARGETS:
        value = case.target.expected(case.plans[0].setting, case.plans[0].nbeta)
        if len(case.plans) == 1 and not case.target.exact and value is not None:
            assert value == pytest.approx(case.target.truth.llc, rel=0.02), case.name


def two_weights(t: float, gamma: float) -> float:
    x = gamma**2 / (8 * t)
    return 0.5 + x - x * special.k1e(x) / special.k0e(x)


def one_and_two(t: float, gamma: float) -> float:
    """λ̂ of v²w⁴, v integrated out."""

    def mean(power: int) -> float:
        def value(log_w: float) -> float:
            w = np.exp(log_w)
            s = 2 * t * w**4 + gamma
            return w * np.exp(-gamma * w**2 / 2) * s**-0.5 * (t * w**4 / s) ** power

        return integrate.quad(value, -20, np.log(9 / np.sqrt(gamma)), limit=400)[0]

    return mean(1) / mean(0)


def three_weights(t: float, gamma: float) -> float:
    """λ̂ of u²v²w² as an average of that of u²v² over w, in the free energy's derivative."""

    def mean(function: int) -> float:
        def value(log_w: float) -> float:
            w = np.exp(log_w)
            x = gamma**2 / (8 * t * w**2)
            partition = special.k0e(x) * np.sqrt(x)
            return (
                w
                * np.exp(-gamma * w**2 / 2)
                * partition
                * (two_weights(t * w**2, gamma) if function else 1)
            )

        return integrate.quad(value, -12, np.log(9 / np.sqrt(gamma)), limit=400)[0]

    return mean(1) / mean(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("w₁²w₂²", two_weights), ("w₁²w₂⁴", one_and_two), ("w₁²w₂²w₃²", three_weights)],
)
@pytest.mark.parametrize("gamma", [1.0, 1.3])
def test_extrapolation_finds_the_llc_from_exact_values(
    name: str, value: object, gamma: float
) -> None:
    """Of another integration, and even where the localisation is not what the theory is told it
    is.
    """
    case = CASES[f"1024 × {name}"]
    fine = [replace(plan, setting=replace(plan.setting, lr=1e-12)) for plan in case.plans]
    llcs = [1024 * value(plan.nbeta, gamma) for plan in fine]  # pyright: ignore[reportCallIssue]
    errors = [0.005 * llc for llc in llcs]
    llc, _, _ = calibration.extrapolate(
        llcs, errors, [calibration.terms(case.target, plan) for plan in fine], 3
    )
    assert llc == pytest.approx(case.target.truth.llc, rel=0.002 if gamma == 1 else 0.02)
    assert abs(llcs[-1] / case.target.truth.llc - 1) > 0.15  # what there was to extrapolate


@pytest.mark.parametrize("name", ["16 × 4-3-4, rank 1", "16 × 4-3-5, rank 1"])
def test_extrapolation_of_a_regression_from_random_matrices(name: str) -> None:
    """Both factors of the surplus integrated by sampling A from its prior: the true part is known
    to be regular.
    """
    case = CASES[name]
    assert isinstance(case.target, DeepLinear)
    inputs, hidden, outputs = (width - 1 for width in case.target.widths)
    a = np.random.default_rng(0).standard_normal((100_000, hidden, inputs))
    x = np.linalg.eigvalsh(a @ a.transpose(0, 2, 1))
    llcs = []
    for plan in case.plans:
        gamma, curvature = plan.setting.localization, plan.nbeta * case.target.scale**2
        t = plan.nbeta / gamma**2
        weight = np.exp(-outputs / 2 * np.log1p(t * x).sum(1))
        surplus = (weight * (outputs / 2 * t * x / (1 + t * x)).sum(1)).sum() / weight.sum()
        regular = curvature / (2 * curvature + gamma) + (inputs + outputs) / 2 * curvature / (
            curvature + gamma
        )
        llcs.append(16 * (surplus + regular))
    llc, _, _ = calibration.extrapolate(
        llcs, llcs, [calibration.terms(case.target, plan) for plan in case.plans], 3
    )
    assert llc == pytest.approx(case.target.truth.llc, rel=0.02)


def test_extrapolation_weighs_by_the_errors_and_counts_the_freedom() -> None:
    """Two points and two unknowns: the line through them; its variance adds up, and its freedom
    lies between that of one and of both.
    """
    terms = [(-2.0, 1.0), (-1.0, 0.5)]  # λ + b·slope + term
    llc, error, (low, high) = calibration.extrapolate([8.0, 9.0], [0.1, 0.1], terms, 3)
    assert llc == pytest.approx(10.0)
    assert error == pytest.approx(0.1 * np.sqrt(1 + 4))  # λ = 2·(second) − (first), terms taken off
    freedom = 3 * 5**2 / (1 + 16)
    assert (high - low) / 2 / error == pytest.approx(special.stdtrit(freedom, 0.975))


@pytest.mark.parametrize(
    ("llc", "error", "verdict"),
    [
        (100.9, 0.0, "within 1 %"),
        (103, 1.0, "within the interval"),
        (96, 0.1, "within 5 %"),
        (106, 0.1, "outside"),
    ],
)
def test_verdicts(llc: float, error: float, verdict: str) -> None:
    assert calibration.judge(llc, (llc - 3.18 * error, llc + 3.18 * error), 100.0) == verdict


def test_right_samplers_find_exact_values() -> None:
    for name in ("quadratic, large step", "quadratic, localised"):
        record = calibration.calibrated(CASES[name], [measure(Job(name))], 4)
        assert record.verdict == "within 1 %", record
        assert record.exact is not None
        assert abs(record.exact / record.true_llc - 1) > 0.2  # λ itself would not have done


def test_every_mistake_is_caught_and_the_right_sampler_is_not() -> None:
    controls = {
        mistake: calibration.control(mistake, measure(Job(LOCALISED.name, mistake=mistake)))
        for mistake in MISTAKES
    }
    assert not controls.pop("none").caught
    assert len(controls) == 3
    assert all(control.caught for control in controls.values()), controls


def test_mistakes_are_what_they_are_called() -> None:
    """By the stationary variance of w ← (1 − d)·w + s·noise, which is s²/(1 − (1 − d)²)."""
    (plan,) = LOCALISED.plans
    eps, gamma, t = plan.setting.lr, plan.setting.localization, plan.nbeta
    wrong = {
        "none": (eps / 2 * (t + gamma), np.sqrt(eps)),
        "noise × 1.1": (eps / 2 * (t + gamma), 1.1 * np.sqrt(eps)),
        "step ε for ε/2": (eps * (t + gamma), np.sqrt(eps)),
        "no localisation": (eps / 2 * t, np.sqrt(eps)),
    }
    for mistake, (drift, noise) in wrong.items():
        mistaken = MISTAKES[mistake](plan)
        found = LOCALISED.target.expected(mistaken.setting, mistaken.nbeta)
        assert found is not None
        assert found * t / mistaken.nbeta == pytest.approx(
            LOCALISED.target.parameters / 2 * t * noise**2 / (1 - (1 - drift) ** 2)
        )


def test_a_rung_of_a_ladder_is_where_quadrature_puts_it() -> None:
    case = CASES["1024 × w₁²w₂²"]
    found = measure(Job(case.name, rung=1))
    expected = case.target.expected(case.plans[1].setting, case.plans[1].nbeta)
    assert expected is not None
    assert found.llc == pytest.approx(expected, rel=0.03)
    assert found.llc < 0.6 * case.target.truth.llc


def test_intervals_of_short_chains_hold_the_truth() -> None:
    """24 repeats: fewer than 20 hits have a chance of 1 % if each has 95 %."""
    record = calibration.covered(
        [measure(Job(REPEATED.name, repeat=repeat)) for repeat in range(24)]
    )
    assert record.covered >= 20


def test_coverage_counts_hits_with_a_wilson_interval() -> None:
    truth = calibration.reference(REPEATED)
    record = calibration.covered([outcome(truth, 0.1)] * 19 + [outcome(truth + 1, 0.1)])
    assert (record.covered, record.repeats) == (19, 20)
    assert record.interval == pytest.approx((0.7639, 0.9911), abs=1e-4)  # Wilson (1927), z = 1.96


def test_the_longest_work_comes_first() -> None:
    costs = [job.cost for job in calibration.jobs(3)]
    assert costs == sorted(costs, reverse=True)
    assert (
        len(set(calibration.jobs(3)))
        == len(costs)
        == sum(len(case.plans) for case in TARGETS) + 3 + len(MISTAKES) - 1
    )


TINY = Calibration(groups=2, chains=1, repeats=3)


def test_finished_jobs_are_not_run_again(tmp_path: Path) -> None:
    done, left = Job("quadratic, large step"), Job(REPEATED.name)
    kept.write(
        calibrate.store(tmp_path, TINY, SEED) / calibrate.name(done),
        {"outcome": kept.note(outcome(123.0, 1.0).model_dump())},
    )
    found = calibrate.measure([done, left], TINY, SEED, 1, tmp_path)
    assert found[done].llc == 123.0
    again = calibrate.measure([left], TINY, SEED, 1, tmp_path)
    assert again[left] == found[left] == measure(left, groups=2, chains=1)


def test_a_checkpoint_is_for_its_own_seed_plan_and_mistake(tmp_path: Path) -> None:
    job = Job(LOCALISED.name)
    files = {
        calibrate.store(tmp_path, plan, seed) / calibrate.name(job)
        for job, plan, seed in (
            (job, TINY, 1),
            (job, TINY, 2),
            (job, TINY.model_copy(update={"groups": 3}), 1),
            (replace(job, mistake="noise × 1.1"), TINY, 1),
            (replace(job, repeat=1), TINY, 1),
        )
    }
    assert len(files) == 5


def test_bytes_do_not_depend_on_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        calibration,
        "TARGETS",
        tuple(CASES[name] for name in ("quadratic", "quadratic, large step")),
    )
    everything = params.load(ROOT / "params.yaml")
    written = []
    for workers in (1, 2):
        machine = everything.machine.model_copy(update={"processes": workers})
        calibrate.run(
            everything.model_copy(update={"calibration": TINY, "machine": machine}),
            tmp_path / str(workers),
            tmp_path / "log",
        )
        written.append(
            {file.name: file.read_bytes() for file in sorted((tmp_path / str(workers)).iterdir())}
        )
    assert written[0] == written[1]
    assert list(written[0]) == ["calibration.json", "controls.json", "coverage.json"]
    assert not list(
        (tmp_path / "log").glob("*.json")
    )  # nothing is left that a later run would take for its own
    out = tmp_path / "1"
    assert [row.target for row in read(out / "calibration.json", Calibrated)] == [
        "quadratic",
        "quadratic, large step",
    ]
    assert read(out / "coverage.json", Coverage)[0].repeats == 3
    assert {row.mistake for row in read(out / "controls.json", Control)} == set(MISTAKES)
    assert "quadratic, large step" in capsys.readouterr().out


def test_a_chain_that_leaves_the_finite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(LOCALISED.plans[0], setting=replace(LOCALISED.plans[0].setting, lr=10.0))
    monkeypatch.setitem(CASES, "blown up", Case("blown up", "quadratic", LOCALISED.target, (plan,)))
    with pytest.raises(calibration.UserError, match="blown up"):
        measure(Job("blown up"))


def test_nothing_is_extrapolated_without_a_theory() -> None:
    plan = Plan(10.0, LOCALISED.plans[0].setting, 1, 1)
    with pytest.raises(ValueError, match="nothing is known"):
        calibration.terms(DeepLinear((2, 3, 3, 2), 1, 10), plan)
    assert isinstance(calibration.terms(Bigram(6, 2, 1, 1, 3.0), plan), tuple)
