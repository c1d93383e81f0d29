"""Computes estimates again from the weights that git keeps, and compares them with their traces."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import hypot
from pathlib import Path

import numpy as np
import xarray as xr

from replicate.data.json_io import rounded
from replicate.errors import UserError
from replicate.estimation.estimate import Estimate
from replicate.pipeline import kept
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.setting import SettingUnit
from replicate.pipeline.stages import extract, pretrain, settings
from replicate.seeds import derive

APART = 3.0  # standard errors by which two estimates of one quantity may differ


def run(config: Config, count: int, as_json: bool, models: Sequence[str] = ()) -> bool:
    """Computes `count` kept estimates again, of some models or of all, and prints how they compare.

    On the same kind of processor with the same packages a trace has the same bytes, whatever has
    changed in code that should not matter. Elsewhere the noise is the same and rounding is not, so
    λ̂ is compared within its errors.

    Returns:
        Whether no λ̂ differs by more than `APART` standard errors.

    Raises:
        UserError: git keeps no traces, or none of a model, or the windows of the models' text
            cannot be made.
    """
    held = [
        name
        for family in _families(config)
        for name in config.families[family].models
        if (kept.folder(config, family) / f"{name}.npz").is_file()
    ]
    for model in models:
        if model not in held:
            raise UserError(f"{model}: git keeps no estimate of it; give some of {', '.join(held)}")
    known = dict(stored(config, models or held))
    if not known:
        raise UserError(f"{config.paths.data / 'kept'}: has no traces of params.yaml's settings")
    seed = derive(config.seed, "verify", count)
    order = np.random.default_rng(seed).permutation(len(known))[:count]
    chosen = [list(known)[i] for i in sorted(order)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        again = [replace(unit, root=Path(folder)) for unit in chosen]
        run_units(again, config.machine, "verify")
        for unit, fresh in zip(chosen, again, strict=True):
            rows.append(compared(unit.name, known[unit], fresh.trace()))
    if as_json:
        print(json.dumps(rounded(rows), indent=1))
    for row in [] if as_json else rows:
        print(f"{row['name']}: λ̂ {row['kept']:.6g} kept, {row['again']:.6g} again: {row['result']}")
    return all(row["result"] != "differs" for row in rows)


def _families(config: Config) -> list[str]:
    """Returns the families whose estimates at settings git keeps."""
    return [
        name
        for name, family in config.families.items()
        if family.settings is not None and kept.folder(config, name).is_dir()
    ]


def stored(config: Config, models: Sequence[str]) -> Iterator[tuple[SettingUnit, xr.Dataset]]:
    """Yields each unit of some models whose trace and weights git keeps, with the trace.

    What the units read is put where they read it: the windows are made, the weights copied.
    """
    for name in _families(config):
        of_family = config.families[name].models
        if not set(of_family) & set(models):
            continue
        if not (config.paths.windows(name)).is_dir():
            extract.run(config, name)
        for model in of_family:  # the radius of one follows from the sizes of all
            if not (config.paths.models(name) / model).is_dir():
                pretrain.run(config, name, model)
        for model in of_family:
            for unit in settings.units(config, model) if model in models else ():
                trace = kept.trace(config, unit)
                if trace is not None and unit.task.folder.is_dir():
                    yield unit, trace


def compared(name: str, old: xr.Dataset, new: xr.Dataset) -> dict[str, str | float]:
    """Compares two traces of one unit."""
    a, b = Estimate(old), Estimate(new)
    if old.drop_attrs().identical(new.drop_attrs()):
        result = "the same bytes"
    elif abs(a.llc - b.llc) <= APART * hypot(a.standard_error, b.standard_error):
        result = "within its error"
    else:
        result = "differs"
    return {"name": name, "kept": a.llc, "again": b.llc, "result": result}
