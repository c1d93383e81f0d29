"""Each model of a family can sample its own text, on which w* is a minimum of its loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from replicate import sample_text
from replicate.data import tensors, traces, windows
from replicate.models import pretrained
from replicate.pipeline import cost
from replicate.pipeline.config import Config, reading
from replicate.pipeline.work import plans, texts
from replicate.seeds import derive
from replicate.study import records
from tests.models.test_generation import gradient_squared, sharp
from tests.pipeline import small

ARCHITECTURES = {"own-gpt2": "gpt2", "own-llama": "llama"}
N, LENGTH = 600, 8
MINI = small.DATA["families"]["demo"]


def configured(**changes: Any) -> Config:
    """A study of two local models on the text that each samples from itself."""
    given = small.parameters()
    family = given["families"]["mini"] | {"corpus": "own", "tokenizer": "own", "original": None}
    family |= {"length": LENGTH, "loss": "tokens"}
    family["curve"] = None
    family["search"] = family["search"] | {"model": "own-gpt2"}
    family["models"] = {name: {"source": "local", "path": name} for name in ARCHITECTURES}
    given |= {
        "corpora": {"own": {"source": "sampled", "windows": N}},
        "tokenizers": {"own": {"source": "local", "path": "own-gpt2"}},
        "families": {"own": family},
        "studies": {"own": {"full": "own", "quantised": "own", "quantisation": None}},
        "calibration": {},
    }
    return reading.build(small.changed(given, changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project in which every stage of that study ran, and which is the working directory."""
    folder = tmp_path_factory.mktemp("sampled")
    tokenizer = windows.train_tokenizer(["a film of some length"], 258)
    for name, architecture in ARCHITECTURES.items():
        sharp(architecture).save_pretrained(folder / name)
        tokenizer.save(str(folder / name / "tokenizer.json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small.run(configured(), *small.COMPUTING, "collect", name="own")
        yield folder


def tokens_of(folder: Path, model: str) -> NDArray[np.int64]:
    file = folder / "data" / "own" / "baselines" / model / "windows.safetensors"
    return windows.load(file).tokens_NxL.astype(np.int64)


def test_the_loss_has_a_gradient_on_another_models_text_and_none_on_its_own(
    finished: Path,
) -> None:
    for name, other in zip(ARCHITECTURES, reversed(ARCHITECTURES), strict=True):
        model, _ = pretrained.load(name)
        own, own_error = gradient_squared(model, tokens_of(finished, name))
        foreign, error = gradient_squared(model, tokens_of(finished, other))
        assert abs(own) < 4 * own_error
        assert foreign > 10 * max(error, own_error)


def test_results_say_which_model_sampled_the_text_and_from_which_seed(finished: Path) -> None:
    (row,) = records.read(finished / "results" / "own" / "windows.json", records.Extraction)
    assert list(row.sampled) == list(ARCHITECTURES)
    for name in ARCHITECTURES:
        model, _ = pretrained.load(name)
        given: dict[str, Any] = {"batch_size": 16, "show_progress": False}
        seeds = [derive(row.sampled[name], piece) for piece in range(3)]
        counts = (256, 256, N - 512)
        parts = [
            sample_text(model, count, LENGTH, seed=seed, **given)
            for count, seed in zip(counts, seeds, strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), tokens_of(finished, name))


def test_chains_read_the_text_of_their_own_model(finished: Path) -> None:
    data = finished / "data" / "own"
    assert not (data / "windows" / "windows.safetensors").exists()
    for name in ARCHITECTURES:
        expected = tensors.file_hash(data / "baselines" / name / "windows.safetensors")
        for trace in (data / "traces" / name, data / "transfer" / name / "3"):
            assert traces.load(trace).attrs["task"]["windows"] == expected
    rows = records.read(finished / "results" / "own" / "estimates.json", records.Estimate)
    assert {row.model for row in rows} == set(ARCHITECTURES)
    refused = records.read(finished / "results" / "own" / "refused.json", records.Refused)
    assert not refused


def test_more_windows_are_sampled_beside_those_that_there_are(finished: Path) -> None:
    longer = texts.text_units(configured(**{"corpora.own.windows": 2 * N}), "own-gpt2")
    assert [unit.done() for unit in longer] == [True, True, False, False, False]
    assert plans.estimate(configured(), "own-gpt2")[0].done()


def test_the_plan_counts_the_windows_that_are_sampled() -> None:
    """A window is written in one pass. Its loss takes one, its gradient one, each descent half."""
    work = {w.model: w.examples for w in cost.list_work(configured(), "own") if w.examples}
    assert work == dict.fromkeys(ARCHITECTURES, 2 * N + 16 + 5 * 8)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("tokenizers.own", {"source": "trained", "vocabulary": 300}, "tokenizer: is trained on"),
        (
            "families.own.models.own-gpt2",
            MINI["models"]["demo-15k"],
            "models.own-gpt2: is trained",
        ),
        ("families.own.original", MINI["original"], "original: needs reviews"),
        ("families.own.rule", "characters", "rule: characters needs"),
    ],
)
def test_what_needs_text_before_the_models_sample_it_is_refused(
    key: str, value: object, says: str
) -> None:
    small.told(lambda: configured(**{key: value}), f"families.own.{says}")
