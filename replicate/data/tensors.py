"""Arrays on disk: safetensors files with a hash of their content, so that damage is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from replicate.errors import UserError

AGAIN = "delete it and run the stage that writes it again"


def save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays by name. An interrupted write leaves no file, because safetensors renames."""
    save_file(dict(arrays), path, metadata={"sha256": fingerprint(arrays)})


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the arrays that `save` wrote.

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
