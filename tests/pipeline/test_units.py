"""A unit gives what its module gives, a trace explains itself, and `collect` believes the trace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

from replicate.data import tensors, traces, windows
from replicate.estimation import estimators, posterior
from replicate.models import baseline, loading, task, training
from replicate.models.config import Schedule, order
from replicate.pipeline import cache
from replicate.pipeline.cli import main
from replicate.pipeline.config import Config, reading
from replicate.pipeline.stages import collect
from replicate.pipeline.work import plans
from replicate.progress import silent
from replicate.sampling import sample
from replicate.seeds import derive
from replicate.study import records
from tests.pipeline import small
from tests.pipeline.small import MODELS, configured

MODEL = MODELS[0]


def rows(config: Config, name: str) -> list[Any]:
    return records.read(config.paths.study("demo") / f"{name}.json", records.COLLECTED[name])


def test_a_model_is_what_training_gives(project: Path) -> None:
    config = configured()
    text = windows.load(config.paths.windows("mini") / plans.WINDOWS)
    vocabulary = windows.read_tokenizer(config.paths.windows("mini")).get_vocab_size()
    torch.manual_seed(derive(2023, "initialise", MODEL))
    model = loading.build("gpt2", layers=1, width=8, heads=2, vocabulary=vocabulary, length=12)
    schedule = Schedule(lr=0.02, **config.training.model_dump())
    generator = torch.Generator().manual_seed(derive(2023, "train", MODEL))
    tokens_NxL = torch.from_numpy(text.tokens_NxL).long()
    batches = training.epochs(tokens_NxL, 8, generator)
    outcome = training.train(model, tokens_NxL, schedule, batches, silent)
    folder = config.paths.models("mini") / MODEL
    for name, stored in load_file(folder / "model.safetensors").items():
        np.testing.assert_array_equal(stored, model.get_parameter(name).detach().numpy())
    noted = json.loads((folder / "training.json").read_text())
    assert noted["steps"] == outcome.steps == 4
    assert noted["loss"] == pytest.approx(outcome.loss, rel=1e-5)
    assert noted["epochs"] == pytest.approx(4 * 8 / len(tokens_NxL), rel=1e-5)


def test_a_baseline_is_what_its_module_gives(project: Path) -> None:
    config = configured()
    found = task.load(plans.task_config(config, MODEL))
    order_N = order(2023, "mini", found.examples, "gradient")[:16]
    losses_N, report = baseline.examine(found, order_N, 16, 4, silent)
    folder = config.paths.baselines("mini") / MODEL
    np.testing.assert_array_equal(tensors.load(folder / "losses.safetensors")["losses"], losses_N)
    noted = json.loads((folder / "baseline.json").read_text())
    assert noted["windows"] == tensors.file_hash(config.paths.windows("mini") / plans.WINDOWS)
    for name in ("loss", "gradient_norm", "gradient_norm_squared", "descent"):
        assert noted[name] == pytest.approx(report[name], rel=1e-5)


def test_a_trace_is_what_sampling_in_one_process_gives(project: Path) -> None:
    config = configured()
    found = task.load(plans.task_config(config, MODEL))
    losses_N = tensors.load(config.paths.baselines("mini") / MODEL / "losses.safetensors")["losses"]
    whole = sample(
        found,
        plans.chosen(config, "mini"),
        plans.sampling(config, "mini", config.families["mini"].sampling),
        losses_N,
        order=lambda shuffle: order(2023, "mini", found.examples, shuffle),
        noise=lambda shuffle, chain: derive(2023, "noise", MODEL, shuffle, chain),
        advance=silent,
    )
    trace = traces.load(config.paths.traces("mini") / MODEL)
    for name in ("loss", "init_loss", "diverged"):
        np.testing.assert_array_equal(trace[name], whole[name])
    assert trace.sizes == {"shuffle": 2, "chain": 2, "draw": 6, "half": 2}


def test_a_trace_explains_itself(project: Path) -> None:
    """What made it is in its attributes, and nothing in the folder is needed to read it."""
    config, attributes = configured(), traces.load(Path("data/mini/traces") / MODEL).attrs
    losses_N = tensors.load(config.paths.baselines("mini") / MODEL / "losses.safetensors")["losses"]
    text = tensors.file_hash(config.paths.windows("mini") / plans.WINDOWS)
    stored = load_file(config.paths.models("mini") / MODEL / "model.safetensors")
    weights = sum(tensor.size for tensor in stored.values())
    unit = plans.estimate(config, MODEL)[0]
    assert attributes["sampler"] == asdict(plans.chosen(config, "mini"))
    assert attributes["sampling"] == asdict(unit.sampling) | {"nbeta": 30.0}
    assert attributes["task"] == {
        "weights": "float32",
        "compute_dtype": "float32",
        "restriction": ["all"],
        "windows": text,
        "model": tensors.file_hash(config.paths.models("mini") / MODEL),
        "length": 12,
        "parameters": weights,
        "sampled_parameters": weights,
        "examples": len(losses_N),
    }
    names = {"stage": "estimate", "family": "mini", "model": MODEL, "seed": 2023}
    names |= {"code": cache.code_hash("estimate")}
    names |= {"baseline": {"loss": losses_N.mean(dtype=np.float64), "windows": text}}
    assert {name: attributes[name] for name in names} == names
    assert attributes["machine"]["threads"] == 1
    assert attributes["machine"]["versions"]["torch"] == torch.__version__


def test_a_pair_of_chains_tells_the_elasticity_in_gamma(project: Path) -> None:
    """The neighbours' minibatches and noise are those of the estimate; only γ differs."""
    config = configured()
    folders = [getattr(config.paths, name)("mini") / MODEL for name in ("traces", "neighbours")]
    pair = [traces.load(folder) for folder in folders]
    one, other = (each.attrs["sampler"] for each in pair)
    assert other == one | {"localization": 1.25 * one["localization"]}
    np.testing.assert_array_equal(pair[0].init_loss, pair[1].init_loss)
    a, b = (each.squared_distance.values for each in pair)
    np.testing.assert_array_equal(a[..., 1], b[..., 1])  # at w* nothing pulls
    assert (a[..., -1] > b[..., -1]).all()
    for folder, trace in zip(folders, pair, strict=True):
        trace["loss"] += 0.5  # else λ̂ of a model after four steps is negative
        shutil.rmtree(folder)
        traces.save(trace, folder)
    small.run(config, "collect", name="demo")
    baseline = pair[0].attrs["baseline"]["loss"]
    expected = posterior.coupled(pair[0], pair[1], baseline)
    row = next(row for row in rows(config, "estimates") if row.model == MODEL)
    assert row.elasticity_gamma == pytest.approx(tuple(expected), rel=1e-4)
    dilation = posterior.measure(pair[0], baseline).elasticity_gamma
    assert row.dilation == pytest.approx(tuple(dilation), rel=1e-4)
    shutil.rmtree(config.paths.neighbours("mini"))
    small.run(config, "collect", name="demo")
    row = next(row for row in rows(config, "estimates") if row.model == MODEL)
    assert row.elasticity_gamma == row.dilation


def test_the_first_model_alone_has_a_pair_where_params_yaml_says_so(project: Path) -> None:
    small.write(project, small.parameters(families__mini__sampling__neighbours="first"))
    shutil.rmtree(configured().paths.neighbours("mini"))
    assert CliRunner().invoke(main, ["neighbours", "mini"]).exit_code == 0
    names = [path.name for path in configured().paths.neighbours("mini").iterdir()]
    assert names == list(reading.load().families["mini"].models)[:1]


def test_no_pair_is_run_where_there_is_no_localisation(project: Path) -> None:
    chosen = configured().paths.search("mini") / "chosen.json"
    chosen.write_text(json.dumps(json.loads(chosen.read_text()) | {"localization": 0.0}))
    shutil.rmtree(configured().paths.neighbours("mini"))
    small.run(configured(), "neighbours")
    assert list(configured().paths.neighbours("mini").iterdir()) == []


def test_the_protocol_of_2023_says_how_many_labels_are_padded(project: Path) -> None:
    config, trace = configured(), traces.load(Path("data/mini/original") / MODEL)
    padded_N = windows.load(config.paths.windows("mini") / plans.PADDED).padded_N
    assert trace.attrs["texts"] == len(padded_N)
    assert trace.attrs["padded_labels"] == padded_N.mean()
    order_N = order(2023, "mini", len(padded_N), 1)
    second_chain = order_N[np.arange(18, 36) % len(order_N)].reshape(6, 3)  # of shuffle 1
    np.testing.assert_array_equal(trace.padded[1, 1], padded_N[second_chain].sum(axis=1))


def test_collect_takes_temperature_and_baseline_from_the_trace(project: Path) -> None:
    config = configured()
    trace = traces.load(config.paths.traces("mini") / MODEL)
    llc = estimators.controlled(trace, 30.0, trace.attrs["baseline"]["loss"])
    (row,) = (
        row
        for row in rows(config, "estimates")
        if (row.model, row.estimator) == (MODEL, "controlled")
    )
    assert row.nbeta == 30.0
    assert row.llc == pytest.approx(float(llc.mean()), rel=1e-5)
    assert len(rows(config, "transfer")) == 4
    assert [row.model for row in rows(config, "original")] == list(MODELS)
    assert rows(config, "refused") == []


def another_text(config: Config) -> None:
    file = config.paths.windows("mini") / plans.WINDOWS
    found = tensors.load(file)
    tensors.save(file, found | {"tokens": found["tokens"][::-1].copy()})


def another_model(config: Config) -> None:
    (config.paths.models("mini") / MODEL / "config.json").write_text("{}")


MINI = "families__mini__"
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({f"{MINI}sampling__nbeta": 7.0}, "sampling.nbeta is 30.0 in the trace, and params.yaml asks"),
    ({f"{MINI}sampling__shuffles": 3}, "sampling.shuffles is 2 in the trace"),
    ({f"{MINI}sampling__localization": 0.0, "seed": 3}, "seed is 2023 in the trace"),
    (
        {f"{MINI}compute_dtype": "bfloat16"},
        "data/mini/baselines/mini-8: was computed from other compute_dtype (float32, expected bf",
    ),
    (
        {f"{MINI}loss": "tokens"},
        "data/mini/baselines/mini-8: was computed from other loss (last, expected tokens); run",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), MISFITS, ids=[reason for _, reason in MISFITS])
def test_a_trace_of_other_parameters_is_refused_and_counts_as_not_run(
    project: Path, changes: dict[str, Any], reason: str
) -> None:
    config = configured(**changes)
    small.run(config, "collect", name="demo")
    assert rows(config, "estimates") == rows(config, "provenance") == []
    assert len(rows(config, "baselines")) == 2
    refused = {row.path: row.reason for row in rows(config, "refused")}
    assert refused[f"data/mini/traces/{MODEL}"].startswith(reason)


def test_a_family_whose_loss_is_of_all_tokens(project: Path) -> None:
    """Baseline, chains and records have it; the protocol of 2023 has the loss of last tokens."""
    config = configured(families__mini__loss="tokens")
    small.run(config, "baseline", "estimate", only=MODEL)
    found = task.load(plans.task_config(config, MODEL))
    tokens_NxL = found.tokens_NxL.long()
    with torch.no_grad():
        shares_NxTxV = found.model(tokens_NxL[:, :-1]).logits.log_softmax(-1)
    expected_N = -shares_NxTxV.gather(-1, tokens_NxL[:, 1:, None])[..., 0].mean(dim=1).numpy()
    folder = config.paths.baselines("mini") / MODEL
    losses_N = tensors.load(folder / "losses.safetensors")["losses"]
    np.testing.assert_allclose(losses_N, expected_N, rtol=1e-5)
    trace = traces.load(config.paths.traces("mini") / MODEL)
    assert trace.attrs["task"]["loss"] == "tokens"
    drawn = order(2023, "mini", len(losses_N), 0)[: trace.sizes["draw"] * 4].reshape(-1, 4)
    np.testing.assert_allclose(trace.init_loss[0, 0], losses_N[drawn].mean(axis=1), rtol=1e-5)
    small.run(config, "collect", name="demo")
    assert {row.model for row in rows(config, "estimates")} == {MODEL}
    assert [row.model for row in rows(config, "original")] == list(MODELS)
    small.run(configured(), "collect", name="demo")
    refused = {row.path: row.reason for row in rows(config, "refused")}
    assert "other loss (tokens, expected last)" in refused[f"data/mini/traces/{MODEL}"]
    there, planned = map(collect.with_defaults, (trace.attrs, {"task": {}, "sampler": {}}))
    (reason,) = collect.differences(there, planned)
    assert reason == "task.loss is tokens in the trace, and params.yaml asks for last"


@pytest.mark.parametrize("change", [another_model, another_text])
def test_a_trace_of_another_model_or_text_is_refused(
    project: Path, change: Callable[[Config], None]
) -> None:
    config = configured()
    change(config)
    small.run(config, "collect", name="demo")
    assert MODEL not in {row.model for row in rows(config, "estimates")}
    assert f"data/mini/traces/{MODEL}" in {row.path for row in rows(config, "refused")}


def test_what_was_not_run_is_not_in_the_results(empty: Path) -> None:
    config = configured()
    small.run(config, "collect", name="demo")
    assert all(rows(config, name) == [] for name in records.COLLECTED)
    assert json.loads((config.paths.study("demo") / "metrics.json").read_text()) == {}


def test_a_result_says_which_files_and_parameters_it_is_from(project: Path) -> None:
    config = configured()
    record = next(row for row in rows(config, "provenance") if row.model == MODEL)
    weights = tensors.file_hash(config.paths.models("mini") / MODEL / "model.safetensors")
    assert record.weights == {"model.safetensors": weights}
    assert record.windows == tensors.file_hash(config.paths.windows("mini") / plans.WINDOWS)
    assert record.code == cache.code_hash("estimate")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"families__mini__transfer__draws": 9}, {"transfer"}),
        ({"training__tolerance": 0.5}, {"training"}),
        ({f"families__mini__models__{MODELS[1]}__lr": 0.5}, set()),
        ({"machine__workers": 2}, set()),
    ],
)
def test_the_part_of_the_parameters_that_changed_is_told_by_its_hash(
    project: Path, changes: dict[str, Any], parts: set[str]
) -> None:
    before = rows(configured(), "provenance")[0]
    small.run(configured(**changes), "collect", name="demo")
    after = rows(configured(), "provenance")[0]
    hashes = before.parameters.items() - after.parameters.items()
    assert {part for part, _ in hashes} == parts
