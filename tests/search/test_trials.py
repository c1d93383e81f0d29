"""All combinations are tried, TPE can be resumed, and each rule chooses as it says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from replicate.sampling import SamplerConfig
from replicate.search import trials
from replicate.search.trials import Outcome, Trial
from tests.conftest import ROOT
from tests.scenarios import BASELINE, trace

LIMITS = {"rhat_below": 1.05, "drift_above": 0.01}
POSTERIOR = trials.posterior("sgld", localization=100.0, weight_decay=0.0, bounding_box=None)
GOOD = Outcome(10.0, 1.0, 0.5, 0.05, 1.01, 0.5, 0.0, 0)


def tried(proposed_by: str, lr: float, mean: float, **outcome: Any) -> Trial:
    return Trial(proposed_by, replace(POSTERIOR, lr=lr), replace(GOOD, mean=mean, **outcome))  # pyright: ignore[reportArgumentType]


def other_posterior(lr: float, **outcome: Any) -> Trial:
    return Trial("grid", replace(POSTERIOR, lr=lr, localization=1.0), replace(GOOD, **outcome))


def test_the_write_ups_grid_has_its_144_settings() -> None:
    """SGLD has 4 × 3 × 3 × 3 = 108, SGNHT 4 × 3 × 3 = 36, all with the noise of A = 0.01."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    grids = params["families"]["gpt2"]["search"]
    sgld, sgnht = (trials.settings(name, grids[name]) for name in ("sgld", "sgnht"))
    assert (len(set(sgld)), len(set(sgnht))) == (108, 36)
    assert SamplerConfig("sgld", 1e-7, weight_decay=0.01, localization=0.1) in sgld
    assert {sampler.diffusion for sampler in sgnht} == {0.001, 0.01, 0.1}
    assert {sampler.noise_diffusion for sampler in sgnht} == {0.01}


# What a trial is worth


def test_stability_is_mean_over_standard_deviation_across_chains() -> None:
    """Three chains whose losses are 1, 2, 3 above the baseline have λ̂ = nβ·(1, 2, 3)."""
    data = trace(1, 3)
    data.loss[:] = BASELINE + np.array([1.0, 2.0, 3.0])[None, :, None]
    result = trials.outcome(data, nbeta=7.0, baseline=BASELINE, **LIMITS)
    assert result.mean == pytest.approx(14.0, rel=1e-3)
    assert result.stability == pytest.approx(2.0, rel=1e-3)
    assert not result.healthy


def test_efficiency_of_independent_draws_is_the_share_that_is_not_burn_in() -> None:
    result = trials.outcome(trace(1, 4, 100, 300), 1.0, BASELINE, **LIMITS)
    assert result.efficiency == pytest.approx(0.75, rel=0.15)
    assert result.healthy


def test_chains_that_disagree_or_drift_are_not_healthy_and_the_worse_the_less_worth() -> None:
    penalties = []
    for apart, slope in ((0.0, 0.0), (0.03, 0.0), (0.1, 0.0), (0.3, 0.0), (0.0, 0.001)):
        data = trace(1, 4)
        data.loss[:] += apart * np.arange(4)[None, :, None] + slope * np.arange(210)
        penalties.append(trials.outcome(data, 1.0, BASELINE, **LIMITS).penalty)
    assert penalties[0] == 0 < penalties[1] < penalties[2] < penalties[3] <= 1
    assert penalties[4] > 0
    values = [trials.worth(replace(GOOD, penalty=penalty), 0.1) for penalty in penalties]
    assert min(values[0], trials.worth(GOOD, math.inf)) > values[1] > values[2] > values[3] > -3


def test_a_trial_with_a_diverged_chain_is_worth_less_than_any_without() -> None:
    data = trace(1, 3)
    results = []
    for diverged in (1, 3):
        data.diverged[:] = np.arange(3) < diverged
        results.append(trials.outcome(data, 1.0, BASELINE, **LIMITS))
    assert [result.diverged_chains for result in results] == [1, 3]
    assert np.isnan([result.stability for result in results]).all()
    worst = trials.worth(replace(GOOD, penalty=1.0, noise=math.inf), 1.0)
    assert worst > trials.worth(results[0], math.nan) > trials.worth(results[1], math.nan)


def test_the_step_bias_finds_both_ends_of_the_plateau() -> None:
    """λ̂(ε) = (1 − e^(−ε/10⁻⁴))·(1 + ε/10⁻²): first proportional to ε, at last biased by ε/0.01."""
    lrs = np.geomspace(1e-6, 3e-3, 40)
    llcs = 30 * -np.expm1(-lrs / 1e-4) * (1 + lrs / 1e-2)
    biases = np.array(
        trials.step_biases([tried("tpe", *pair) for pair in zip(lrs, llcs, strict=True)])
    )
    below, above = lrs < 1e-5, lrs > 1e-3
    assert biases[below] == pytest.approx(1, abs=0.15)
    assert biases[(lrs > 4e-4) & (lrs < 8e-4)].max() < 0.12
    assert biases[above] == pytest.approx(lrs[above] / (1e-2 + lrs[above]), rel=0.1)
    negative = [tried("tpe", lr, -50.0 - 1e5 * lr) for lr in (1e-4, 2e-4, 4e-4)]
    expected = [1e5 * trial.sampler.lr / -trial.outcome.mean for trial in negative]
    assert trials.step_biases(negative) == pytest.approx(expected)


def test_only_other_steps_of_the_same_posterior_tell_the_bias() -> None:
    elsewhere = other_posterior(1e-3, mean=500.0)
    diverged = tried("grid", 1e-2, 900.0, diverged_chains=1)
    found = [tried("grid", 1e-4, 10.0), tried("tpe", 3e-4, 10.0), elsewhere, diverged]
    biases = trials.step_biases(found)
    assert biases[:2] == pytest.approx([0, 0], abs=1e-9)
    assert np.isnan(biases[2:]).all()


@pytest.mark.fault("A5")
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_chains_that_did_not_leave_the_minimum_have_a_fault(rounding: float) -> None:
    """Whatever R-hat and drift say of the rounding of their losses."""
    data = trace(1, 4)
    noise = np.random.default_rng(0).normal(size=data.loss.shape)
    data["loss"] = data.init_loss + rounding * noise
    result = trials.outcome(data, 30.0, BASELINE, **LIMITS)
    assert "did not leave w*" in result.fault
    assert abs(result.mean) < 1e-5


@pytest.mark.fault("A5")
def test_chains_that_are_not_local_have_a_fault() -> None:
    """Their loss is 0.1 above that at w*, and guessing 0.2 or 2."""
    for guess, local in ((BASELINE + 0.2, False), (BASELINE + 2.0, True), (math.nan, True)):
        result = trials.outcome(trace(1, 4), 30.0, BASELINE, **LIMITS, guess=guess, local=0.25)
        assert result.healthy
        assert (result.fault == "") == local


# The choice


@pytest.mark.fault("A5")
@pytest.mark.parametrize("rule", ["stability", "efficiency", "accuracy"])
def test_no_rule_chooses_a_trial_with_a_fault(rule: trials.Rule) -> None:
    """However good its numbers are."""
    best = {"standard_deviation": 1e-9, "efficiency": 1.0, "noise": 0.0, "fault": "not local"}
    found = [tried("grid", 1e-4, 10.0), tried("grid", 2e-4, 10.0, **best)]
    assert trials.choose(rule, found, POSTERIOR) == 0
    assert trials.choose(rule, found[1:], POSTERIOR) is None


def test_stability_chooses_the_most_stable_trial_of_the_grid_without_diverged_chains() -> None:
    found = [
        tried("grid", 1e-5, 10.0, standard_deviation=5.0),
        tried("grid", 1e-4, 90.0, standard_deviation=1.0, diverged_chains=1),
        tried("grid", 1e-3, 10.0, standard_deviation=1.0, penalty=0.5),
        tried("grid", 1e-2, -50.0, standard_deviation=1.0),
        tried("tpe", 1e-3, 10.0, standard_deviation=0.1),
        Trial("grid", SamplerConfig("sgnht", 1e-6, diffusion=0.1), replace(GOOD, mean=99.0)),
    ]
    assert trials.choose("stability", found, POSTERIOR) == 2
    assert trials.choose("stability", found[1:2], POSTERIOR) is None


def plateau(**of_the_best: Any) -> list[Trial]:
    """λ̂ rises to 30, stays, and rises again, while the efficiency rises throughout."""
    means = [1.0, 10.0, 29.0, 30.0, 31.0, 50.0, 90.0]
    found = [
        tried("tpe", 1e-5 * 3**i, mean, efficiency=0.1 * (i + 1)) for i, mean in enumerate(means)
    ]
    found[3] = Trial("grid", found[3].sampler, replace(found[3].outcome, **of_the_best))
    return found


def test_accuracy_chooses_neither_the_chain_that_does_not_move_nor_the_step_that_biases() -> None:
    """Both are healthy, and `efficiency` chooses the large step."""
    found = plateau()
    assert trials.choose("efficiency", found, POSTERIOR) == 6
    assert trials.choose("accuracy", found, POSTERIOR) == 3
    assert trials.choose("accuracy", found[::-1], POSTERIOR) == 3


def test_accuracy_chooses_at_the_familys_own_posterior_alone() -> None:
    found = [
        other_posterior(1e-3, noise=0.0),
        tried("grid", 1e-4, 10.0),
        tried("tpe", 1e-3, 10.0, noise=0.2),
        Trial("grid", SamplerConfig("rmsprop", 1e-3), GOOD),
    ]
    assert trials.choose("accuracy", found, POSTERIOR) == 1
    assert trials.choose("accuracy", found[:1], POSTERIOR) is None


@pytest.mark.parametrize("flaw", ["noise", "penalty"])
def test_accuracy_prefers_the_smaller_error_and_without_healthy_trials_the_nearest_to_health(
    flaw: str,
) -> None:
    flaws = {1e-4: 0.3, 2e-4: 0.1, 4e-4: 0.6}
    found = [tried("tpe", lr, 10.0, **{flaw: value}) for lr, value in flaws.items()]
    assert trials.choose("accuracy", found, POSTERIOR) == 1


def test_healthy_trials_come_first_and_those_with_a_diverged_chain_never() -> None:
    assert trials.choose("accuracy", plateau(penalty=0.01), POSTERIOR) in (2, 4)
    unwell = tried("tpe", 2e-4, 10.0, penalty=0.6)
    diverged = [tried("tpe", 1e-4, 10.0, diverged_chains=1, penalty=1.5)]
    assert trials.choose("accuracy", [*diverged, unwell], POSTERIOR) == 1
    assert trials.choose("accuracy", diverged, POSTERIOR) is None


# TPE


def evaluate(samplers: Sequence[SamplerConfig]) -> Iterator[Outcome]:
    """λ̂ of a made-up plateau, best at ε = 2e-4."""
    for sampler in samplers:
        mean = 30 * -math.expm1(-sampler.lr / 2e-5) * (1 + sampler.lr / 2e-3)
        healthy = sampler.lr < 1e-3
        yield replace(GOOD, mean=mean, penalty=0.0 if healthy else 0.5)


def propose(seed: int = 7, evaluate: trials.Evaluate = evaluate) -> list[Trial]:
    ranges = {"lr": (1e-6, 1e-2)}
    return trials.propose(POSTERIOR, ranges, evaluate, trials=14, batch=4, seed=seed)


def test_tpe_varies_its_own_knobs_alone_and_within_their_ranges() -> None:
    ranges = {"lr": (1e-9, 1e-5), "diffusion": (0.01, 0.3)}
    template = trials.posterior("sgnht", 0.0, 0.0, 0.5)
    found = trials.propose(template, ranges, evaluate, trials=9, batch=4, seed=7)
    assert len({trial.sampler for trial in found}) == 9
    for sampler in (trial.sampler for trial in found):
        assert trials.same_posterior(sampler, template)
        assert 1e-9 <= sampler.lr <= 1e-5
        assert 0.01 <= (sampler.diffusion or 0) <= 0.3


def test_the_first_half_spreads_over_the_range_and_the_other_gathers_on_the_plateau() -> None:
    logs = np.log10([trial.sampler.lr for trial in propose()])
    assert set(np.floor(logs[:7])) == {-6, -5, -4, -3}
    assert (np.abs(logs[7:] + 3.7) < 0.6).mean() > 0.5  # of the range it is 0.3


def test_a_search_that_is_run_again_from_its_outcomes_proposes_the_same_trials() -> None:
    """Neither an interruption nor the time that an outcome takes leaves a mark."""
    whole = propose()
    known = {trial.sampler: trial.outcome for trial in whole[:9]}
    new: list[SamplerConfig] = []

    def resumed(samplers: Sequence[SamplerConfig]) -> list[Outcome]:
        missing = [sampler for sampler in samplers if sampler not in known]
        new.extend(missing)
        known.update(zip(missing, evaluate(missing), strict=True))
        return [known[sampler] for sampler in samplers]

    assert propose(evaluate=resumed) == whole
    assert new == [trial.sampler for trial in whole[9:]]


def test_the_proposals_are_those_of_the_study_and_of_its_seed() -> None:
    """They decide which settings are chosen, so a new version of Optuna must not change them."""
    one, other = propose(), propose(seed=8)
    lrs = [trial.sampler.lr for trial in one[7:10]]
    assert lrs == pytest.approx([1.0749574328446445e-4, 9.560222457984964e-3, 2.0562893246657e-6])
    assert one[:7] == other[:7]
    assert one[7:] != other[7:]
