"""Models whose every step has new text: a training for each seed, with checkpoints, resumable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from replicate.data import tensors
from replicate.models import training
from replicate.pipeline.config import Config, load
from replicate.pipeline.stages.pretrain import training_unit
from replicate.progress import silent
from tests.pipeline import small

MODEL = {
    "source": "single-epoch",
    "architecture": "gpt2",
    "layers": 1,
    "width": 8,
    "heads": 2,
    "lr": 0.01,
    "steps": 6,
    "seeds": 2,
    "checkpoints": [1, 2, 6],
}


def changes(models: dict[str, Any]) -> dict[str, Any]:
    """Returns the changes that give the small study other models; `new-1` is among them."""
    found = {"models": models, "search__model": "new-1", "curve": None}
    found |= {"transfer__models": ["new-1"], "original__models": ["new-1"]}
    return {f"families__mini__{key}": value for key, value in found.items()}


def configured(**given: Any) -> Config:
    """Returns the small study with a model of two trainings in place of its own."""
    return small.configured(**changes({"new": MODEL | given}), machine__checkpoint_seconds=0.0)


def trained(config: Config, name: str = "new-1") -> Path:
    small.run(config, "pretrain")
    return config.paths.models("mini") / name


def test_each_seed_is_a_training_and_the_first_has_checkpoints(project: Path) -> None:
    config = configured()
    first, second = trained(config), trained(config, "new-2")
    assert sorted(path.name for path in first.glob("step-*")) == ["step-1", "step-2", "step-6"]
    assert not list(second.glob("step-*"))
    weights = [load_file(folder / "model.safetensors") for folder in (first, second)]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])
    last = load_file(first / "step-6" / "model.safetensors")
    assert all((last[name] == stored).all() for name, stored in weights[0].items())
    noted = json.loads((second / "training.json").read_text())
    assert (noted["seed"], noted["steps"], noted["epochs"]) == (2, 6, 0.0)
    assert noted["parameters"] == sum(each.size for each in weights[1].values())


def test_checkpoints_are_no_part_of_a_model(project: Path) -> None:
    folder = trained(configured())
    before = tensors.file_hash(folder)
    shutil.rmtree(folder / "step-1")
    assert tensors.file_hash(folder) == before


def test_more_steps_go_the_same_way_until_the_rate_falls(project: Path) -> None:
    """With 6 steps, the rate falls after 3, so a training of 12 steps is the same for 2 steps."""
    short = load_file(trained(configured()) / "step-2" / "model.safetensors")
    longer = trained(configured(steps=12))
    for name, stored in load_file(longer / "step-2" / "model.safetensors").items():
        np.testing.assert_array_equal(stored, short[name])
    last = load_file(longer / "model.safetensors")
    assert any((last[name] != short[name]).any() for name in last)


class InterruptedTrainingError(Exception):
    """Ends a training as a kill does."""


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_a_training_that_is_resumed_ends_at_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    config = configured()
    unit = training_unit(config, "new-1", config.models["new-1"])  # pyright: ignore[reportArgumentType]
    unit.run(silent)
    whole = small.files(unit.file)
    shutil.rmtree(unit.file)
    record = training.Course.record

    def counted(course: training.Course, loss: float) -> None:
        if course.step == taken:
            raise InterruptedTrainingError
        record(course, loss)

    with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
        patched.setattr(training.Course, "record", counted)
        unit.run(silent)
    assert not unit.done()
    unit.run(silent)
    assert small.files(unit.file) == whole


MISTAKES = [
    ({"seeds": []}, "models.new.seeds: "),
    ({"seeds": 0}, "models.new.seeds: "),
    ({"seeds": [2, 2]}, "models.new.seeds: each value may be listed only once"),
    ({"seeds": ["a"]}, "models.new.seeds.0: 'a' is text where a number belongs"),
    ({"checkpoints": [2, 1]}, "models.new.checkpoints: write each step once, in rising order"),
    ({"checkpoints": [2, 2]}, "models.new.checkpoints: write each step once"),
    (
        {"checkpoints": [2, 7]},
        "models.new-1.checkpoints: 7 is after step 6; leave it out",
    ),
    ({"checkpoints": [0]}, "models.new.checkpoints.0: "),
    ({"width": 9}, "models.new-1.width: 9 is not a multiple of 2 × heads (4)"),
]


def told(folder: Path, says: str, models: dict[str, Any], **others: Any) -> None:
    small.write(folder, small.parameters(**changes(models), **others))
    small.told(lambda: load(folder / "params.yaml"), f"families.mini.{says}")


@pytest.mark.parametrize(("given", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_a_mistake_is_told(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    told(tmp_path, says, {"new": MODEL | given})


def test_a_name_that_two_models_have_is_told(tmp_path: Path) -> None:
    """The second training of `new` is called new-2, and so is another model."""
    other = small.parameters()["families"]["mini"]["models"][small.MODELS[0]]
    told(tmp_path, "models: new-2 is named twice", {"new": MODEL, "new-2": other})


def test_a_corpus_that_the_grammar_did_not_write_is_told(tmp_path: Path) -> None:
    local = {"source": "local", "path": "reviews.jsonl"}
    told(tmp_path, "corpus: films is not gen", {"new": MODEL}, corpora__films=local)
