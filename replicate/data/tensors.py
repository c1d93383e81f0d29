"""Arrays on disk: safetensors with a hash of what is in them, so that a damaged file is told and
never used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from replicate.errors import UserError


def save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """As a whole or not at all: safetensors writes beside the file and renames."""
    save_file(dict(arrays), path, metadata={"sha256": fingerprint(arrays)})


def load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that `save` put there.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            whole = (stored.metadata() or {}).get("sha256") == fingerprint(arrays)
    except Exception as error:  # safetensors' many ways to say that a file is missing or damaged
        raise UserError(
            f"{path}: cannot be read ({error}); delete it and run dvc repro again"
        ) from None
    if not whole:
        raise UserError(f"{path}: damaged, its hash is another; delete it and run dvc repro again")
    return arrays


def fingerprint(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(
            f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return digest.hexdigest()
