"""The cache has one file for each finished unit, named by a hash of all that the unit depends on.

The hash covers the unit's settings, the hashes of its inputs, and the code that computes it. So a
change of a model or a setting recomputes only its own units, and results of other code or inputs
are never used. A file is written completely or not at all; a damaged file counts as missing. The
result of a training is a folder instead of a file.
"""

from __future__ import annotations

import ast
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from replicate.data import tensors
from replicate.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = Path(__file__).parents[1]
PIPELINE = PACKAGE.parent / "dvc.yaml"
CHAINS = (  # the stages that sample
    "search",
    "estimate",
    "neighbours",
    "curve",
    "transfer",
    "original",
    "settings",
    "quantisation",
)
UNITS = ("pretrain", "baseline", *CHAINS, "calibrate", "coverage")  # the stages that run units


def key(**parts: Any) -> str:
    """Returns a unit's key: 24 hexadecimal digits of the SHA-256 of its parts as JSON.

    Args:
        parts: the unit's settings, and the hashes of its inputs and of its code.
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def write(file: Path, arrays: Mapping[str, NDArray[Any]], **notes: Any) -> None:
    """Writes arrays and notes (as JSON) to a file, completely or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps(notes, sort_keys=True).encode(), np.uint8)
    tensors.save(file, {**arrays, "notes": text})


def read(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Returns the arrays and notes that `write` saved; None if the file is missing or damaged."""
    if not file.is_file():
        return None
    try:
        arrays = tensors.load(file)
        return arrays, json.loads(arrays.pop("notes").tobytes())
    except (UserError, KeyError):
        return None


class Checkpoint:
    """Saves the state of a training in `file`, at most once in `every` seconds."""

    def __init__(self, file: Path, every: float) -> None:
        self.file, self.every, self.last = file, every, time.monotonic()

    def load(self) -> dict[str, Tensor] | None:
        """Returns the last state that was saved; None if there is none."""
        import torch

        found = read(self.file)
        if found is None:
            return None
        return {name: torch.from_numpy(array) for name, array in found[0].items()}

    def offer(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Saves a state if `every` seconds have passed since the last one."""
        if time.monotonic() - self.last >= self.every:
            write(self.file, {name: each.detach().cpu().numpy() for name, each in state().items()})
            self.last = time.monotonic()

    def drop(self) -> None:
        """Deletes the file."""
        self.file.unlink(missing_ok=True)


@cache
def code_hash(stage: str) -> str:
    """Returns a hash of the code that dvc.yaml lists for a stage, and of torch's version.

    Comments, docstrings and layout do not change the hash, so a unit is not computed again when
    only they change.

    Raises:
        KeyError: dvc.yaml has no such stage.
    """
    digest = hashlib.sha256(version("torch").encode())
    for file in _files(stage):
        digest.update(f"{file.relative_to(PACKAGE)} {_essence(file.read_bytes())}".encode())
    return digest.hexdigest()


def contents(stage: str) -> str:
    """Returns a hash of the bytes of a stage's code as they are on disk now, comments included."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in _files(stage))).hexdigest()


def _files(stage: str) -> list[Path]:
    paths = [PACKAGE.parent / name for name in dependencies(stage)]
    found = [sorted(path.rglob("*.py")) if path.is_dir() else [path] for path in paths]
    return list(chain.from_iterable(found))


@cache
def dependencies(stage: str) -> tuple[str, ...]:
    """Returns the paths of the code that dvc.yaml lists as a stage's dependencies."""
    declared = _stages()[stage]
    every = declared.get("do", declared)["deps"]
    return tuple(dep for dep in every if dep.startswith("replicate/"))


@cache
def _stages() -> dict[str, Any]:
    return yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"]


@cache
def _essence(source: bytes) -> str:
    """Returns the syntax tree of a source as text, without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [line for line in body if not _is_text(line)]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    """Returns whether a statement is only a string, such as a docstring."""
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)
