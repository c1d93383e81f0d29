"""Keeps in git what took long to compute: weights and traces, under data/kept.

Stages `pretrain` and `settings` look there before they compute. They take what was made from the
same parameters, windows and weights, as they would from the cache; the code may differ, and
`verify --sample` tells whether that matters. Without the folder, everything is computed.

    data/kept/<family>/<model>/      a trained model; made.json says from what it was made, and has
                                     the hash of each file
    data/kept/<family>/<model>.npz   the model's traces at all settings
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from replicate.data import json_io, traces
from replicate.data.tensors import file_hash
from replicate.errors import UserError
from replicate.pipeline import kept_file
from replicate.pipeline.config import Config

if TYPE_CHECKING:
    from replicate.pipeline.setting import SettingUnit
    from replicate.pipeline.stages.pretrain import TrainingUnit

MADE = "made.json"


def folder(config: Config, family: str) -> Path:
    """Returns the folder of a family's kept weights and traces."""
    return config.paths.data / "kept" / family


def restore(config: Config, family: str, unit: TrainingUnit) -> bool:
    """Copies a kept model to where stage `pretrain` writes it; returns whether there is one.

    Raises:
        UserError: a file of the model is damaged.
    """
    source = folder(config, family) / unit.model
    if not source.is_dir():
        return False
    try:
        made = json_io.read_json(source / MADE)
        files = made.pop("files")
        damaged = [name for name, known in files.items() if not _intact(source / name, known)]
    except (UserError, AttributeError, KeyError, TypeError):
        made, damaged = {}, [MADE]
    if damaged:
        remedy = f"restore it by `git checkout {source}`"
        raise UserError(f"{source}: {damaged[0]} is missing or damaged; {remedy}")
    if made != _plain(unit.settings()):
        return False
    out = config.paths.models(family) / unit.model
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns(MADE))
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return True


def _intact(file: Path, known: str) -> bool:
    """Whether a file is there and has a hash."""
    return file.is_file() and file_hash(file) == known


def trace(config: Config, unit: SettingUnit) -> xr.Dataset | None:
    """Returns the kept trace of a unit; None if there is none of the same parameters and weights.

    Raises:
        UserError: the file is damaged.
    """
    found = kept_file.read(folder(config, unit.task.family) / f"{unit.task.model}.npz").get(
        unit.which
    )
    return found if found is not None and _has(found.attrs, _plain(unit.planned())) else None


def step_hash(config: Config, family: str, model: str, step: int) -> str | None:
    """Returns the hash of a checkpoint's weights, of which a trace is kept; None if none is."""
    for each in kept_file.read(folder(config, family) / f"{model}.npz").values():
        if each.attrs["setting"]["step"] == step:
            return each.attrs["task"]["model"]
    return None


def keep(config: Config, family: str) -> None:
    """Writes the family's trained models, and its traces at settings, to data/kept.

    Raises:
        UserError: there is no such family, or nothing of it was computed here.
    """
    if family not in config.families:
        names = ", ".join(config.families)
        raise UserError(
            f"family {family!r}: params.yaml has none of that name; give one of {names}"
        )
    from replicate.pipeline.config.sources import ControlModel
    from replicate.pipeline.stages import pretrain, settings

    out, kept = folder(config, family), 0
    for name, model in config.families[family].models.items():
        source = config.paths.models(family) / name
        if not isinstance(model, ControlModel) or not (source / "training.json").is_file():
            continue
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(source, out / name, ignore=shutil.ignore_patterns("step-*"))
        unit = pretrain.training_unit(config, name, model)
        files = {file.name: file_hash(file) for file in sorted((out / name).iterdir())}
        json_io.write_json(out / name / MADE, _plain(unit.settings()) | {"files": files})
        found = {}
        for each in settings.units(config, name):
            if (path := settings.folder(config, each)).exists():
                found[each.which] = traces.load(path)
        if found:
            kept_file.write(out / f"{name}.npz", found)
        print(f"{name}: weights and {len(found)} traces")
        kept += 1
    if not kept:
        raise UserError(f"{family}: no training of it is here; run the stage pretrain first")


def _plain(value: Any) -> Any:
    """Returns a value as it is after a round trip through JSON, in which tuples become lists."""
    return json.loads(json.dumps(value))


def _has(found: Any, wanted: Any) -> bool:
    """Tells whether attributes have all that is wanted."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and _has(found[key], each) for key, each in wanted.items()
        )
    return found == wanted
