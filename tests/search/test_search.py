"""All combinations are tried; TPE resumes where it was cut off; a trial is worth its expected
error; each rule chooses as it says.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from replicate.data import tensors as arrays
from replicate.data.windows import Windows
from replicate.errors import UserError
from replicate.models import last_token as label
from replicate.models import loading as models
from replicate.pipeline import command
from replicate.pipeline.config import Params, load
from replicate.pipeline.stages import search as stage
from replicate.sampling import Setting
from replicate.search import trials as search
from replicate.search.trials import Attempt, Outcome
from tests.conftest import ROOT
from tests.scenarios import BASELINE, trace

LIMITS = {"rhat_below": 1.05, "drift_above": 0.01}
POSTERIOR = search.posterior("sgld", localization=100.0, weight_decay=0.0, bounding_box=None)
GOOD = Outcome(10.0, 1.0, 0.5, 0.05, 1.01, 0.5, 0.0, 0)
RANGES = {"lr": (1e-6, 1e-2)}


def tried(proposed_by: str, lr: float, mean: float, **outcome: Any) -> Attempt:
    return Attempt(proposed_by, replace(POSTERIOR, lr=lr), replace(GOOD, mean=mean, **outcome))  # pyright: ignore[reportArgumentType]


# Grid


def test_the_write_ups_grid_has_its_144_settings() -> None:
    """SGLD: 4 × 3 × 3 × 3 = 108; SGNHT: 4 × 3 × 3 = 36, all with the noise of A = 0.01."""
    plan = load(ROOT / "params.yaml").families["gpt2"].search
    assert plan.sgnht is not None
    sgld = search.settings("sgld", plan.sgld.model_dump())
    sgnht = search.settings("sgnht", plan.sgnht.model_dump())
    assert (len(set(sgld)), len(set(sgnht))) == (108, 36)
    assert Setting("sgld", 1e-7, weight_decay=0.01, localization=0.1, bounding_box=None) in sgld
    assert {setting.diffusion for setting in sgnht} == {0.001, 0.01, 0.1}
    assert {setting.noise_diffusion for setting in sgnht} == {0.01}


# What a trial is worth


def test_stability_is_mean_over_standard_deviation_across_chains() -> None:
    """Three chains whose losses are 1, 2 and 3 above the baseline: λ̂ = nβ·(1, 2, 3), 2/1 whatever
    nβ.
    """
    data = trace(groups=1, chains=3)
    data.loss[:] = BASELINE + np.array([1.0, 2.0, 3.0])[None, :, None]
    result = search.outcome(data, nbeta=7.0, baseline=BASELINE, **LIMITS)
    assert result.mean == pytest.approx(14.0, rel=1e-3)
    assert result.stability == pytest.approx(2.0, rel=1e-3)
    assert not result.healthy


def test_efficiency_of_independent_draws_is_the_share_that_is_not_burn_in() -> None:
    result = search.outcome(
        trace(groups=1, chains=4, burn_in=100, draws=300), 1.0, BASELINE, **LIMITS
    )
    assert result.efficiency == pytest.approx(0.75, rel=0.15)
    assert result.healthy


def test_chains_that_disagree_or_drift_are_not_healthy_and_the_worse_the_less_worth() -> None:
    penalties = []
    for apart, slope in ((0.0, 0.0), (0.03, 0.0), (0.1, 0.0), (0.3, 0.0), (0.0, 0.001)):
        data = trace(groups=1, chains=4)
        data.loss[:] += apart * np.arange(4)[None, :, None] + slope * np.arange(210)
        penalties.append(search.outcome(data, 1.0, BASELINE, **LIMITS).penalty)
    assert penalties[0] == 0 < penalties[1] < penalties[2] < penalties[3] <= 1
    assert penalties[4] > 0
    values = [search.worth(replace(GOOD, penalty=penalty), 0.1) for penalty in penalties]
    assert min(values[0], search.worth(GOOD, math.inf)) > values[1] > values[2] > values[3] > -3


def test_a_setting_that_lost_a_chain_is_worth_less_than_any_that_kept_all() -> None:
    data = trace(groups=1, chains=3)
    results = []
    for lost in (1, 3):
        data.failed[:] = np.arange(3) < lost
        results.append(search.outcome(data, 1.0, BASELINE, **LIMITS))
    assert [result.failed_chains for result in results] == [1, 3]
    assert np.isnan([result.stability for result in results]).all()
    worst = replace(GOOD, penalty=1.0, noise=math.inf)
    assert (
        search.worth(worst, 1.0)
        > search.worth(results[0], math.nan)
        > search.worth(results[1], math.nan)
    )


def test_the_step_bias_finds_both_ends_of_the_plateau() -> None:
    """λ̂(ε) = (1 − e^(−ε/10⁻⁴))·(1 + ε/10⁻²): proportional to ε far below 1e-4, with a relative
    bias of ε/0.01 above.
    """
    lrs = np.geomspace(1e-6, 3e-3, 40)
    attempts = [
        (a.setting, a.outcome)
        for a in (tried("tpe", lr, 30 * -np.expm1(-lr / 1e-4) * (1 + lr / 1e-2)) for lr in lrs)
    ]
    biases = np.array(search.step_biases(attempts))
    below, above = lrs < 1e-5, lrs > 1e-3
    assert biases[below] == pytest.approx(1, abs=0.15)
    assert biases[(lrs > 4e-4) & (lrs < 8e-4)].max() < 0.12
    assert biases[above] == pytest.approx(lrs[above] / (1e-2 + lrs[above]), rel=0.1)


def test_only_other_steps_of_the_same_posterior_tell_the_bias() -> None:
    elsewhere = Attempt(
        "grid", replace(POSTERIOR, lr=1e-3, localization=1.0), replace(GOOD, mean=500.0)
    )
    failed = tried("grid", 1e-2, 900.0, failed_chains=1)
    attempts = [tried("grid", 1e-4, 10.0), tried("tpe", 3e-4, 10.0), elsewhere, failed]
    biases = search.step_biases([(a.setting, a.outcome) for a in attempts])
    assert biases[:2] == pytest.approx([0, 0], abs=1e-9)
    assert np.isnan(biases[2:]).all()


def test_a_negative_lambda_has_a_step_bias_too() -> None:
    attempts = [tried("tpe", lr, -50.0 - 1e5 * lr) for lr in (1e-4, 2e-4, 4e-4)]
    biases = search.step_biases([(a.setting, a.outcome) for a in attempts])
    assert biases == pytest.approx([1e5 * a.setting.lr / -a.outcome.mean for a in attempts])


# The choice


def test_stability_chooses_the_most_stable_setting_of_the_grid_that_lost_no_chain() -> None:
    attempts = [
        tried("grid", 1e-5, 10.0, standard_deviation=5.0),
        tried("grid", 1e-4, 90.0, standard_deviation=1.0, failed_chains=1),
        tried("grid", 1e-3, 10.0, standard_deviation=1.0, penalty=0.5),
        tried("grid", 1e-2, -50.0, standard_deviation=1.0),
        tried("tpe", 1e-3, 10.0, standard_deviation=0.1),
        Attempt("grid", Setting("sgnht", 1e-6, diffusion=0.1), replace(GOOD, mean=99.0)),
    ]
    assert search.choose("stability", attempts, POSTERIOR) == 2
    assert search.choose("stability", attempts[1:2], POSTERIOR) is None


def plateau(**of_the_best: Any) -> list[Attempt]:
    """λ̂ rises to 30, stays, and rises again; ever more efficient."""
    means = [1.0, 10.0, 29.0, 30.0, 31.0, 50.0, 90.0]
    attempts = [
        tried("tpe", 1e-5 * 3**i, mean, efficiency=0.1 * (i + 1)) for i, mean in enumerate(means)
    ]
    attempts[3] = Attempt("grid", attempts[3].setting, replace(attempts[3].outcome, **of_the_best))
    return attempts


def test_accuracy_chooses_neither_the_chain_that_does_not_move_nor_the_step_that_biases() -> None:
    """Though both are healthy, and the large step has the most effective draws, which `efficiency`
    falls for.
    """
    attempts = plateau()
    assert search.choose("efficiency", attempts, POSTERIOR) == 6
    assert search.choose("accuracy", attempts, POSTERIOR) == 3
    assert search.choose("accuracy", attempts[::-1], POSTERIOR) == 3


def test_accuracy_prefers_the_smaller_monte_carlo_error_on_the_plateau() -> None:
    attempts = [
        tried("tpe", lr, 30.0, noise=noise)
        for lr, noise in ((1e-4, 0.2), (2e-4, 0.05), (4e-4, 0.1))
    ]
    assert search.choose("accuracy", attempts, POSTERIOR) == 1


def test_accuracy_chooses_at_the_familys_own_posterior_alone() -> None:
    other = Attempt(
        "grid", replace(POSTERIOR, lr=1e-3, localization=300.0), replace(GOOD, noise=0.0)
    )
    attempts = [
        other,
        tried("grid", 1e-4, 10.0),
        tried("tpe", 1e-3, 10.0, noise=0.2),
        Attempt("grid", Setting("rmsprop", 1e-3), GOOD),
    ]
    assert search.choose("accuracy", attempts, POSTERIOR) == 1
    assert search.choose("accuracy", attempts[:1], POSTERIOR) is None


def test_healthy_settings_come_first_and_where_none_is_the_one_nearest_to_it() -> None:
    assert search.choose("accuracy", plateau(penalty=0.01), POSTERIOR) in (2, 4)
    unwell = [
        tried("tpe", lr, 10.0, penalty=penalty)
        for lr, penalty in ((1e-4, 0.3), (2e-4, 0.1), (4e-4, 0.6))
    ]
    assert search.choose("accuracy", unwell, POSTERIOR) == 1
    lost = [tried("tpe", 1e-4, 10.0, failed_chains=1, penalty=1.5)]
    assert search.choose("accuracy", [*lost, *unwell], POSTERIOR) == 2
    assert search.choose("accuracy", lost, POSTERIOR) is None


# TPE


class Target:
    """λ̂ of a made-up plateau, best at ε = 2e-4; stops with an error before evaluation number
    `until`.
    """

    def __init__(self, until: int | None = None) -> None:
        self.calls, self.until = 0, until

    def __call__(self, settings: Sequence[Setting]) -> Iterator[Outcome]:
        for setting in settings:
            if self.calls == self.until:
                raise KeyboardInterrupt
            self.calls += 1
            mean = 30 * -math.expm1(-setting.lr / 2e-5) * (1 + setting.lr / 2e-3)
            healthy = setting.lr < 1e-3
            yield replace(
                GOOD, mean=mean, penalty=0.0 if healthy else 0.5, rhat=1.0 if healthy else 2.0
            )


def propose(path: Path, target: Any, **options: Any) -> list[tuple[Setting, Outcome]]:
    storage = search.journal(path)
    template = options.pop("template", POSTERIOR)
    return search.propose(
        storage,
        template,
        options.pop("ranges", RANGES),
        target,
        **{"trials": 14, "batch": 4, "seed": 7} | options,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Setting, Outcome]]:
    return propose(tmp_path_factory.mktemp("tpe") / "journal", Target())


def test_tpe_varies_its_own_knobs_alone_and_within_their_ranges(tmp_path: Path) -> None:
    ranges = {"lr": (1e-9, 1e-5), "diffusion": (0.01, 0.3)}
    template = search.posterior("sgnht", 0.0, 0.0, 0.5)
    found = [
        setting
        for setting, _ in propose(
            tmp_path / "journal", Target(), ranges=ranges, template=template, trials=9
        )
    ]
    assert len(set(found)) == 9
    assert {replace(setting, lr=1.0, diffusion=1.0) for setting in found} == {
        replace(template, lr=1.0, diffusion=1.0)
    }
    assert all(
        1e-9 <= setting.lr <= 1e-5 and setting.diffusion and 0.01 <= setting.diffusion <= 0.3
        for setting in found
    )


def test_the_first_half_spreads_over_the_range_and_the_other_gathers_on_the_plateau(
    uninterrupted: list[tuple[Setting, Outcome]],
) -> None:
    logs = np.log10([setting.lr for setting, _ in uninterrupted])
    assert set(np.floor(logs[:7])) == {-6, -5, -4, -3}
    assert (np.abs(logs[7:] + 3.7) < 0.6).mean() > 0.5  # of the range it is 0.3


@pytest.mark.parametrize("until", [0, 3, 4, 6, 11, 13])
def test_a_search_cut_off_after_any_evaluation_ends_with_the_same_trials(
    until: int, tmp_path: Path, uninterrupted: list[tuple[Setting, Outcome]]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        propose(tmp_path / "journal", Target(until))
    assert propose(tmp_path / "journal", Target()) == uninterrupted


def test_a_journal_cut_off_at_any_byte_ends_with_the_same_trials(
    tmp_path: Path, uninterrupted: list[tuple[Setting, Outcome]]
) -> None:
    """As by a kill while a batch is proposed, half told, or a line half written; with the lock
    still held.
    """
    propose(tmp_path / "whole", Target())
    whole = (tmp_path / "whole").read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 10, *(end + 1 for end in ends[1::6]), *(end - 5 for end in ends[3::9])):
        (tmp_path / "journal").write_bytes(whole[:cut])
        (tmp_path / "journal.lock").symlink_to(tmp_path / "journal")
        assert propose(tmp_path / "journal", Target()) == uninterrupted, cut


def test_another_seed_proposes_other_settings(
    tmp_path: Path, uninterrupted: list[tuple[Setting, Outcome]]
) -> None:
    assert propose(tmp_path / "journal", Target(), seed=8)[7:] != uninterrupted[7:]


def test_the_storage_is_a_study_that_optuna_reads(tmp_path: Path) -> None:
    found = propose(tmp_path / "journal", Target())
    study = optuna.load_study(study_name="sgld", storage=search.journal(tmp_path / "journal"))
    assert [trial.params["lr"] for trial in study.trials] == [setting.lr for setting, _ in found]
    assert study.best_trial.params["lr"] == pytest.approx(2e-4, rel=1.5)


# The stage, on a model of a few thousand weights


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    model = models.build("gpt2", layers=1, width=8, heads=2, vocabulary=20, length=6).eval()
    model.save_pretrained(folder / "model")
    tokens = torch.randint(0, 20, (400, 6), dtype=torch.int32)
    (folder / "windows").mkdir()
    review, padded = np.arange(400, dtype=np.int32), np.zeros(400, bool)
    Windows(tokens.numpy(), review, padded, None, {}).save(
        folder / "windows" / "windows.safetensors"
    )
    (folder / "baseline").mkdir()
    with torch.no_grad():
        arrays.save(
            folder / "baseline" / "losses.safetensors",
            {"losses": label.losses(model, tokens.long()).numpy()},
        )
    params = load(ROOT / "params.yaml").model_dump(mode="json")
    plan: dict[str, Any] = {"rule": "accuracy", "chains": 2, "burn_in": 2, "draws": 8}
    plan |= {
        "sgld": {
            "lr": [1e-4, 1e-3],
            "weight_decay": [0.0],
            "localization": [100.0, 300.0],
            "bounding_box": [None],
        }
    }
    plan |= {
        "sgnht": {
            "lr": [1e-6],
            "diffusion": [0.01, 0.1],
            "noise_diffusion": [0.01],
            "bounding_box": [None],
        }
    }
    lr = {"lr": [1e-4, 2e-2]}
    plan |= {
        "tpe": {
            "trials": 3,
            "batch": 2,
            "sgld": lr,
            "rmsprop": lr,
            "sgnht": {"lr": [1e-8, 1e-6], "diffusion": [0.01, 0.3]},
        }
    }
    params["families"]["mini"]["search"] |= plan
    params["families"]["mini"]["sampling"] |= {
        "sampler": "sgld",
        "localization": 100.0,
        "batch_size": 4,
    }
    return Params.model_validate_json(json.dumps(params)), folder


def run(
    inputs: tuple[Params, Path], out: Path, processes: int = 1, **search: Any
) -> dict[str, bytes]:
    """Everything that the stage leaves, by file."""
    params, folder = inputs
    changed = params.model_dump(mode="json")
    changed["machine"]["processes"] = processes
    changed["families"]["mini"]["search"] |= search
    params = Params.model_validate_json(json.dumps(changed))
    stage.run(
        params,
        "mini",
        folder / "windows",
        folder / "model",
        folder / "baseline",
        out,
        out.with_name("log"),
    )
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def finished(
    inputs: tuple[Params, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, bytes]]:
    out = tmp_path_factory.mktemp("alone") / "search"
    return out, run(inputs, out)


def test_every_trial_is_published_and_says_which_rules_choose_it(
    finished: tuple[Path, dict[str, bytes]],
) -> None:
    from replicate.study.records import Trial

    rows = [
        Trial.model_validate({"family": "mini", "model": "mini-34k"} | row)
        for row in json.loads(finished[1]["trials.json"])
    ]
    counts = {
        (by, name): sum(row.proposed_by == by and row.sampler == name for row in rows)
        for by, name in {(r.proposed_by, r.sampler) for r in rows}
    }
    assert counts == {
        ("grid", "sgld"): 4,
        ("grid", "sgnht"): 2,
        ("tpe", "sgld"): 3,
        ("tpe", "rmsprop"): 3,
        ("tpe", "sgnht"): 3,
    }
    assert sorted(rule for row in rows for rule in row.chosen_by) == [
        "accuracy",
        "efficiency",
        "stability",
    ]
    chosen = [row for row in rows if row.chosen]
    assert len(chosen) == 1
    assert "accuracy" in chosen[0].chosen_by
    setting = json.loads(finished[1]["chosen.json"])
    assert (setting["sampler"], setting["localization"]) == ("sgld", 100.0)
    assert setting["lr"] == pytest.approx(chosen[0].lr, rel=1e-5)


def test_a_finished_search_leaves_nothing_when_the_next_stage_starts(
    finished: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then DVC may not have taken its output: a search that is run again finds its chains."""
    log = finished[0].with_name("log")
    monkeypatch.setattr(command, "LOGS", log.parent)
    command.sweep(log)
    assert list(log.rglob("chain-*"))
    command.sweep(log.parent / "another")
    assert not [
        path for path in log.rglob("*") if path.is_file() and "seconds.zarr" not in path.parts
    ]


def test_two_processes_leave_the_same_bytes_as_one(
    inputs: tuple[Params, Path], finished: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    assert run(inputs, tmp_path / "search", processes=2) == finished[1]


def test_a_killed_stage_resumes_without_running_a_finished_chain_again(
    inputs: tuple[Params, Path],
    finished: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """15 settings × 2 chains × 10 steps. Cut off in the middle of TPE's eleventh setting."""
    losses, calls = label.losses, 0

    def counted(limit: float) -> None:
        nonlocal calls
        calls = 0

        def label_losses(*arguments: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls > limit:
                raise KeyboardInterrupt
            return losses(*arguments)

        monkeypatch.setattr(label, "losses", label_losses)

    counted(limit=217)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path / "search")
    counted(limit=math.inf)
    assert run(inputs, tmp_path / "search") == finished[1]
    assert calls == 300 - 210


def test_the_rule_says_which_setting_the_family_gets(
    inputs: tuple[Params, Path], finished: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    found = run(inputs, tmp_path / "search", rule="stability")
    rows = [json.loads(files["trials.json"]) for files in (finished[1], found)]
    assert [row["chosen_by"] for row in rows[0]] == [row["chosen_by"] for row in rows[1]]
    assert all("stability" in row["chosen_by"] for row in rows[1] if row["chosen"])


def test_a_search_without_a_setting_to_choose_says_what_to_do(
    inputs: tuple[Params, Path], tmp_path: Path
) -> None:
    grid = {"lr": [1e-3], "weight_decay": [0.0], "localization": [300.0], "bounding_box": [None]}
    with pytest.raises(UserError, match=r"^families\.mini\.search: no sgld setting"):
        run(inputs, tmp_path / "search", sgld=grid, tpe=None, sgnht=None)
    shutil.rmtree(tmp_path / "search", ignore_errors=True)
