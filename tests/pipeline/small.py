"""A study that runs in seconds: one family of two tiny models, and how a test changes it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicate.errors import LONGEST, UserError
from replicate.pipeline.config import Config, reading
from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
LOADED = yaml.load(TEXT, reading.UniqueKeyLoader)  # noqa: S506 - a safe loader
DATA = json.loads(json.dumps(LOADED))  # no block is shared between families
MODELS = ("mini-8", "mini-16")
MISSING = object()  # the value of a key that a change takes away
COMPUTING = ("extract", "pretrain", "baseline", "search", "estimate", "neighbours", "transfer")
COMPUTING += ("original", "curve")
CURVE = {"nbeta": [30.0], "localization": [2000.0, 5000.0], "chains": 2, "draws": 4}
CURVE |= {"models": [MODELS[0]]}
SHORT = {"shuffles": 2, "chains": 2, "burn_in": 2, "draws": 4}


def changed(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters in which keys (a.b.c) have other values."""
    found = copy.deepcopy(dict(data))
    for key, value in changes.items():
        *blocks, last = key.split(".")
        block = found
        for each in blocks:
            block = block[each]
        if value is MISSING:
            del block[last]
        else:
            block[last] = value
    return found


def parameters(**changes: Any) -> dict[str, Any]:
    """Returns the small study's parameters; keyword a__b is key a.b."""
    demo = DATA["families"]["demo"]
    grid = {
        "lr": [1e-4, 1e-3],
        "weight_decay": [0.0],
        "localization": [500.0],
        "bounding_box": [None],
    }
    ranges = {"trials": 2, "batch": 2, "sgld": {"lr": [1e-4, 1e-3]}}
    search = demo["search"] | {"model": MODELS[0], "sgld": grid, "sgnht": None, "rule": "stability"}
    search |= {"chains": 2, "burn_in": 2, "draws": 4}
    search["tpe"] = ranges | {"rmsprop": {"lr": [1e-4, 1e-3]}, "sgnht": None}
    model = demo["models"]["demo-15k"] | {"layers": 1, "steps": None}
    family = demo | {
        "corpus": "films",
        "tokenizer": "films",
        "together": 1,
        "models": {name: model | {"width": int(name[5:])} for name in MODELS},
        "length": 12,
        "sampling": demo["sampling"] | SHORT | {"batch_size": 4},
        "search": search,
        "transfer": demo["transfer"] | SHORT | {"factors": [1.0, 3.0], "chains": 1},
        "curve": CURVE,
        "original": demo["original"] | SHORT | {"batch_size": 3},
    }
    small = {
        "seed": 2023,
        "machine": {"workers": 1},
        "corpora": {"films": {"source": "generated", "reviews": 60}},
        "tokenizers": {"films": {"source": "trained", "vocabulary": 300}},
        "training": DATA["training"] | {"batch_size": 8, "warmup": 1, "check": 2, "steps": 4},
        "baseline": {"batch_size": 16, "gradient_examples": 16},
        "families": {"mini": family},
        "studies": {"demo": {"full": "mini", "quantised": "mini", "quantisation": None}},
    }
    small |= {key: DATA[key] for key in ("diagnostics", "claims")}
    small |= {"calibration": {"demo": DATA["calibration"]["demo"]}, "coverage": {}}
    return changed(small, {key.replace("__", "."): value for key, value in changes.items()})


def configured(**changes: Any) -> Config:
    """Returns the small study's parameters, read."""
    return reading.build(parameters(**changes))


def write(folder: Path, data: Mapping[str, Any]) -> None:
    """Writes parameters to a folder's params.yaml."""
    (folder / "params.yaml").write_text(yaml.safe_dump(dict(data)), encoding="utf-8")


def run(config: Config, *stages: str, name: str = "mini", **given: str) -> None:
    """Runs stages in this process."""
    for stage in stages:
        import_module(f"replicate.pipeline.stages.{stage}").run(config, name, **given)


def told(call: Callable[[], object], *words: str) -> str:
    """Checks that a call ends in one line that holds some words and a remedy; returns the line."""
    with pytest.raises(UserError) as error:
        call()
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < LONGEST + 9
    assert "; " in line or "write one of" in line or "run `" in line, f"no remedy: {line}"
    for word in words:
        assert word in line, line
    return line


def files(folder: Path) -> dict[str, bytes]:
    """Returns the content of all files below a folder, but for the run log."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = ((path.relative_to(folder), path) for path in found)
    return {str(name): path.read_bytes() for name, path in names if name.parts[0] != "logs"}
