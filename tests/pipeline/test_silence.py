"""Nothing that is wrong is taken in silence, and nothing that is finished is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from replicate.data import json_io, tensors, windows
from replicate.pipeline.stages import pretrain
from replicate.pipeline.work import plans
from tests.conftest import replicate
from tests.pipeline import small
from tests.pipeline.small import MODELS, configured, told

MODEL = MODELS[0]
WINDOWS = Path("data/mini/windows") / plans.WINDOWS
BASELINE = Path("data/mini/baselines") / MODEL
CHOSEN = Path("data/mini/search/chosen.json")
TRACE = Path("data/mini/traces") / MODEL
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def edit(file: Path, **changes: Any) -> None:
    """Changes fields of a JSON file by hand."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes), encoding="utf-8")


# Results and what stages left, edited by hand


@pytest.mark.fault("A3")
@pytest.mark.parametrize("command", ["summary", "read"])
def test_results_that_were_edited_are_refused(project: Path, command: str) -> None:
    file = Path("results/demo/estimates.json")
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([*rows, rows[0]]), encoding="utf-8")
    (Path("results/demo/claims.json")).write_text("[]")
    shutil.copytree(small.ROOT / "data", "data", dirs_exist_ok=True)
    before = small.files(project)
    told(lambda: small.run(configured(), command, name="demo"), str(file), "is there twice")
    assert small.files(project) == before


@pytest.mark.fault("A3")
@pytest.mark.parametrize("edited", [{"standard_error": -0.1}, {"loss": "low"}, {"parameters": -1}])
def test_what_a_stage_left_and_was_edited_is_refused(project: Path, edited: dict[str, Any]) -> None:
    edit(BASELINE / "baseline.json", **edited)
    words = (str(BASELINE / "baseline.json"), *edited)
    told(lambda: small.run(configured(), "collect", name="demo"), *words)


@pytest.mark.fault("B7")
def test_collecting_nothing_does_not_replace_results(project: Path) -> None:
    shutil.rmtree("data/mini")
    before = small.files(project)
    told(lambda: small.run(configured(), "collect", name="demo"), "results/demo", "would be lost")
    assert small.files(project) == before


# A baseline of something else


def other_order() -> None:
    stored = tensors.load(WINDOWS)
    tensors.save(WINDOWS, stored | {"tokens": stored["tokens"][::-1].copy()})


def other_weights() -> None:
    file = Path("data/mini/models") / MODEL / "training.json"
    file.write_text(file.read_text() + " ")


@pytest.mark.fault("A4")
@pytest.mark.parametrize(
    ("change", "changes", "says"),
    [
        (other_order, {}, "other windows"),
        (other_weights, {}, "other model"),
        (lambda: None, {"families__mini__weights": "bfloat16"}, "float32, expected bfloat16"),
        (lambda: None, {"families__mini__compute_dtype": "bfloat16"}, "other compute_dtype"),
    ],
)
@pytest.mark.parametrize("stage", ["search", "estimate", "transfer"])
def test_a_baseline_of_something_else_is_refused(
    project: Path, change: Callable[[], None], changes: dict[str, Any], says: str, stage: str
) -> None:
    change()
    said = (says, str(BASELINE), "run `dvc repro baseline@mini`")
    told(lambda: small.run(configured(**changes), stage), *said)


@pytest.mark.fault("A4")
def test_a_rank_that_was_left_in_the_environment_changes_nothing(project: Path) -> None:
    before = small.files(TRACE)
    for unit in plans.estimate(configured(), MODEL):
        unit.file.unlink()
    shutil.rmtree(TRACE)
    done = replicate("estimate", "mini", "--only", MODEL, cwd=project, **dict.fromkeys(RANKS, "1"))
    assert done.returncode == 0, done.stderr
    assert f"{MODEL}: λ̂ " in done.stdout
    assert small.files(TRACE) == before


# Chains that do not move, or are not local


def searched(rule: str, *lrs: float) -> None:
    """Runs a search whose grid has these step sizes."""
    grid = small.parameters()["families"]["mini"]["search"]["sgld"] | {"lr": list(lrs)}
    changes = {"search__rule": rule, "search__tpe": None, "search__sgld": grid}
    small.run(configured(**{f"families__mini__{key}": changes[key] for key in changes}), "search")


@pytest.mark.fault("A5")
@pytest.mark.parametrize("rule", ["stability", "efficiency", "accuracy"])
def test_a_search_never_chooses_chains_that_stay_at_the_minimum(project: Path, rule: str) -> None:
    before = small.files(project / "data")
    told(lambda: searched(rule, 1e-300, 2e-300), "families.mini.search", "add larger lr")
    assert small.files(project / "data") == before


@pytest.mark.fault("A5")
def test_a_search_never_chooses_chains_that_are_not_local(project: Path) -> None:
    """A step size at which the loss rises far above that of guessing."""
    told(lambda: searched("accuracy", 0.05), "not local", "sampling.localization")
    searched("stability", 1e-4, 0.05)
    assert json_io.read_json(CHOSEN)["lr"] == 1e-4


@pytest.mark.fault("A5")
def test_a_search_says_if_its_estimate_depends_on_the_step_size(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched("accuracy", 1e-9, 3e-9)
    assert "warning: λ̂ may depend on the step size (expected error" in capsys.readouterr().out


@pytest.mark.fault("A5")
@pytest.mark.parametrize(
    ("edited", "says"),
    [({"lr": 1e-300}, "the chains did not leave w*"), ({"lr": 0.05}, "not local: the loss ris")],
)
def test_estimate_prints_the_health_of_each_model(
    project: Path, capsys: pytest.CaptureFixture[str], edited: dict[str, Any], says: str
) -> None:
    edit(CHOSEN, **edited)
    small.run(configured(), "estimate", only=MODEL)
    printed = capsys.readouterr().out
    assert f"{MODEL}: λ̂ " in printed
    assert "0 of 4 chains diverged" in printed
    assert f"{MODEL}: warning: {says}" in printed
    small.run(configured(), "collect", name="demo")
    shown = json_io.read_json(Path("results/demo/traces.json"))  # which `summary` prints
    assert any(line.startswith(says) for row in shown for line in row["advice"])


# What is finished stays


@pytest.mark.fault("B7")
def test_no_command_deletes_finished_units_of_another(project: Path) -> None:
    """Even if DVC has not recorded the output, and takes the unfinished one away."""
    cache = configured().paths.cache
    finished = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    whole = small.files(TRACE)
    shutil.rmtree("data/mini/traces")
    small.run(configured(), "extract", "pretrain", "baseline", "search", "transfer", "original")
    small.run(configured(), "collect", name="demo")
    replicate("summary", "demo", cwd=project)
    small.run(configured(), "estimate")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert small.files(TRACE) == whole


# Input that cannot serve


@pytest.mark.fault("B9")
@pytest.mark.parametrize(
    ("edited", "says"),
    [
        ({"lr": -1e-4}, "lr is -0.0001"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"localization": -1.0}, "localization is -1"),
        ({"sampler": "adam"}, "'adam' is no sampler"),
    ],
)
def test_a_setting_that_no_search_chooses_is_told(
    project: Path, edited: dict[str, Any], says: str
) -> None:
    edit(CHOSEN, **edited)
    for stage in ("estimate", "transfer"):
        told(lambda stage=stage: small.run(configured(), stage), f"{CHOSEN}: {says}")


@pytest.mark.fault("B9")
def test_a_factor_that_makes_chains_too_long_is_told(project: Path) -> None:
    config = configured(families__mini__transfer__factors=[1e-300, 1.0])
    said = "families.mini.transfer.factors: 1e-300 needs chains of"
    told(lambda: small.run(config, "transfer"), said)


@pytest.mark.fault("B9")
@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (np.ones((1, 12), np.int32), "has the shape (1, 12)"),
        (np.ones((0, 12), np.int32), "has the shape (0, 12)"),
        (np.ones(12, np.int32), "has the shape (12,)"),
        (np.full((9, 12), -1, np.int32), "holds token -1"),
    ],
)
@pytest.mark.parametrize("stage", ["pretrain", "baseline"])
def test_windows_that_cannot_serve_are_told(
    project: Path, tokens: np.ndarray, says: str, stage: str
) -> None:
    tensors.save(WINDOWS, tensors.load(WINDOWS) | {"tokens": tokens})
    told(lambda: small.run(configured(), stage), f"{WINDOWS}: {says}", "more texts")


@pytest.mark.fault("B9")
@pytest.mark.parametrize("count", [2, 3])
def test_two_texts_are_enough_for_a_baseline(project: Path, count: int) -> None:
    stored = tensors.load(WINDOWS)
    tensors.save(WINDOWS, {name: array[:count] for name, array in stored.items()})
    small.run(configured(), "baseline", only=MODEL)
    assert len(tensors.load(BASELINE / "losses.safetensors")["losses"]) == count


@pytest.mark.fault("B9")
def test_a_tokenizer_whose_numbers_have_a_gap_is_served(project: Path) -> None:
    file = WINDOWS.with_name("tokenizer.json")
    data = json.loads(file.read_text())
    vocabulary = data["model"]["vocab"]
    last = max(vocabulary, key=lambda token: vocabulary[token])
    vocabulary[last] = 999
    file.write_text(json.dumps(data))
    stored = tensors.load(WINDOWS)
    stored["tokens"][0, 0] = 999
    tensors.save(WINDOWS, stored)
    assert Tokenizer.from_file(str(file)).get_vocab_size() < 999
    assert windows.load(WINDOWS).tokens_NxL.max() == 999
    pretrain.run(configured(), "mini", only=MODEL)
    assert json_io.read_json(Path("data/mini/models") / MODEL / "config.json")["vocab_size"] == 1000
