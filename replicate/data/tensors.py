"""Reads and writes arrays as safetensors files, which carry a hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from replicate.data.json_io import AGAIN
from replicate.errors import UserError


def save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays by name, with their hash.

    An interrupted write leaves `path` as it was, because safetensors renames a finished file.
    """
    save_file(dict(arrays), path, metadata={"sha256": fingerprint(arrays)})


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the arrays that `save` wrote, by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "numpy") as stored:
            written = (stored.metadata() or {}).get("sha256")
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {AGAIN}") from None
    if written != fingerprint(arrays):
        raise UserError(f"{path}: damaged, its hash is another; {AGAIN}")
    return arrays


def fingerprint(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Returns the SHA-256 of the names, types, shapes and values of arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the names and contents of the files in a folder.

    Raises:
        UserError: a file cannot be read.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for file in path.iterdir() if file.is_file()):
            digest.update(str(file.relative_to(path)).encode() + bytes.fromhex(file_hash(file)))
        return digest.hexdigest()
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        remedy = "run the stage that makes it, or leave the order to `dvc repro`"
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
