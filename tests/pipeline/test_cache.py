"""The cache knows a finished unit by all that it depends on, and by nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replicate.models import training
from replicate.pipeline import cache
from replicate.pipeline.config import Config
from replicate.pipeline.stages.pretrain import training_unit
from replicate.pipeline.work import plans
from replicate.pipeline.work.units import ChainUnit
from replicate.progress import silent
from replicate.sampling import SamplerConfig, SamplingConfig
from tests.models.small_task import task_config
from tests.pipeline import small
from tests.pipeline.small import MODELS, configured

ARRAYS = {"losses": np.arange(6, dtype=np.float32).reshape(2, 3)}


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[:-7],
    "header flipped": lambda whole: whole[:20] + bytes([whole[20] ^ 4]) + whole[21:],
    "value flipped": lambda whole: whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
    "noise": lambda whole: bytes(range(256)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_counts_as_missing(tmp_path: Path, kind: str) -> None:
    cache.write(tmp_path / "unit", ARRAYS)
    (tmp_path / "unit").write_bytes(DAMAGE[kind]((tmp_path / "unit").read_bytes()))
    assert cache.read(tmp_path / "unit") is None


def test_a_damaged_chain_is_computed_again_to_the_same_bytes(project: Path) -> None:
    config = configured()
    unit = plans.estimate(config, MODELS[0])[0]
    whole, traces = unit.chains(), small.files(config.paths.traces("mini"))
    unit.file.write_bytes(unit.file.read_bytes()[:40])
    shutil.rmtree(config.paths.traces("mini"))
    small.run(config, "estimate")
    for key, chain in whole.items():
        np.testing.assert_array_equal(unit.chains()[key].loss, chain.loss)
    assert small.files(config.paths.traces("mini")) == traces


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one module, on which stage `work` depends."""
    (tmp_path / "replicate").mkdir()
    monkeypatch.setattr(cache, "PACKAGE", tmp_path / "replicate")
    monkeypatch.setattr(cache, "dependencies", lambda stage: ("replicate/",))
    monkeypatch.setattr(cache, "code_hash", cache.code_hash.__wrapped__)  # reads the files anew
    module = tmp_path / "replicate" / "module.py"
    module.write_text('"""A module."""\n\n\ndef double(x):\n    """Doubles."""\n    return 2 * x\n')
    return module


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ('"""Another text."""\ndef double(x):\n    # why\n    return (2  *  x)', True),
        ("def double(x):\n    return 2 * x", True),
        ("def double(x):\n    return x * 2", False),
        ("def double(x, y=1):\n    return 2 * x", False),
        ("def triple(x):\n    return 2 * x", False),
        ("LIMIT = 3\ndef double(x):\n    return 2 * x", False),
    ],
)
def test_code_counts_and_comments_and_docstrings_do_not(
    code: Path, source: str, same: bool
) -> None:
    before = cache.code_hash("work")
    code.write_text(source)
    assert (cache.code_hash("work") == before) == same


def test_a_new_or_renamed_module_is_other_code(code: Path) -> None:
    before = cache.code_hash("work")
    code.rename(code.with_name("renamed.py"))
    assert cache.code_hash("work") != before


CHAIN = ChainUnit(
    Path("cache"),
    "estimate",
    task_config(),
    SamplerConfig("sgld", 1e-3),
    SamplingConfig(30.0, 4, shuffles=2, chains=2, burn_in=2, draws=4),
    pieces=(((0, 0),),),
    seed=2023,
    batch_size=16,
    baseline=Path("losses"),
    baseline_hash="of the losses",
)
# What a chain does not depend on
FREE = {"shuffles", "chains", "device", "folder", "windows", "gpus_per_model", "baseline"}
FREE |= {"gradient_checkpointing", "left_unquantised", "unit batch_size"}


def different(value: Any) -> Any:
    """Returns another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(different(each) for each in value)
    if isinstance(value, Path):
        return Path("elsewhere")
    return "other" if isinstance(value, str) else 7


@pytest.mark.parametrize("part", ["unit", "task", "sampler", "sampling"])
def test_the_key_of_a_chain_holds_all_that_it_depends_on_and_nothing_else(part: str) -> None:
    """Whatever field of its settings changes."""
    whole = CHAIN if part == "unit" else getattr(CHAIN, part)
    for field in fields(whole):
        if field.name not in ("root", "stage", "task", "sampler", "sampling"):
            changed = replace(whole, **{field.name: different(getattr(whole, field.name))})
            unit = changed if part == "unit" else replace(CHAIN, **{part: changed})
            free = bool(FREE & {field.name, f"{part} {field.name}"})
            assert (unit.file == CHAIN.file) == free, field.name


def test_more_shuffles_keep_the_chains_there_are(project: Path) -> None:
    config = configured(families__mini__sampling__shuffles=3, families__mini__sampling__chains=3)
    found = plans.estimate(config, MODELS[0])
    there = [unit.pieces[0][0] for unit in found if unit.done()]
    assert there == [(0, 0), (0, 1), (1, 0), (1, 1)]


def stamps(config: Config) -> dict[Path, int]:
    """Returns when each unit was written."""
    return {
        path: path.stat().st_mtime_ns for path in config.paths.cache.rglob("*") if path.is_file()
    }


def test_nothing_is_computed_twice(project: Path) -> None:
    config = configured()
    before, data = stamps(config), small.files(config.paths.data)
    small.run(config, *small.COMPUTING)
    assert stamps(config) == before
    assert small.files(config.paths.data) == data


def test_one_model_is_computed_alone(project: Path) -> None:
    config = configured()
    shutil.rmtree(config.paths.cache)
    shutil.rmtree(config.paths.traces("mini"))
    small.run(config, "estimate", only=MODELS[1])
    assert [path.name for path in config.paths.traces("mini").iterdir()] == [MODELS[1]]
    done = {name: [unit.done() for unit in plans.estimate(config, name)] for name in MODELS}
    assert done == {MODELS[0]: [False] * 4, MODELS[1]: [True] * 4}
    small.told(lambda: small.run(config, "estimate", only="gpt2"), "--only gpt2", "mini-8, mini-16")


def test_a_changed_model_computes_its_own_units_again_and_no_others(project: Path) -> None:
    before = stamps(configured())
    config = configured(**{f"families__mini__models__{MODELS[1]}__width": 12})
    small.run(config, "pretrain", "baseline", "estimate")
    made = [path.relative_to(config.paths.cache) for path in stamps(config) if path not in before]
    assert sorted({path.parts[0] for path in made}) == ["baseline", "estimate", "pretrain"]
    assert len([path for path in made if path.parts[0] == "estimate"]) == 4
    assert {key: stamp for key, stamp in stamps(config).items() if key in before} == before


class InterruptedTrainingError(Exception):
    """Ends a training as a kill does."""


def test_a_training_is_resumed_from_its_checkpoint_to_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(machine__checkpoint_seconds=0.0)
    model = config.models[MODELS[0]]
    unit = training_unit(config, MODELS[0], model)  # pyright: ignore[reportArgumentType]
    whole = small.files(unit.file)
    shutil.rmtree(unit.file)
    taken: list[float] = []
    record = training.Course.record

    def counted(course: training.Course, loss: float) -> None:
        taken.append(loss)
        if len(taken) == 3:
            raise InterruptedTrainingError
        record(course, loss)

    monkeypatch.setattr(training.Course, "record", counted)
    with pytest.raises(InterruptedTrainingError):
        unit.run(silent)
    assert not unit.done()
    unit.run(silent)
    assert len(taken) == 5  # 2 steps in the checkpoint, the one that was lost, and the last 2
    assert small.files(unit.file) == whole
    assert not list(unit.file.parent.glob("*.checkpoint"))
