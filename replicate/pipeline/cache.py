"""What interrupted work finds again: tensors on disk, in folders named by a hash of all that they
depend on, code included.

What was computed otherwise is never picked up. A file is there as a whole or not at all, and a
damaged one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from replicate.data import tensors as arrays
from replicate.errors import UserError

HERE = Path(__file__).parents[1]
BRIEF = ":bfloat16"


def folder(root: Path, sources: Sequence[str], inputs: Sequence[Path], settings: Any) -> Path:
    """For what depends on `sources`, modules and folders of this package; on `inputs`, files or
    folders; and on `settings`, as JSON has them.
    """
    digest = hashlib.sha256(json.dumps([settings, code(*sources)], sort_keys=True).encode())
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return root / digest.hexdigest()[:16]


class Rest:
    """Where work rests from time to time."""

    def __init__(self, file: Path, every: float) -> None:
        self.file, self.every, self.last = file, every, time.monotonic()

    def load(self) -> dict[str, Tensor] | None:
        """What to go on from, None where there is nothing."""
        return read(self.file)

    def offer(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keeps the state when it is time to."""
        if time.monotonic() - self.last >= self.every:
            write(self.file, state())
            self.last = time.monotonic()

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)


def finish(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "finished").touch()


def write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays.save(file, dict(plain(name, tensor.detach().cpu()) for name, tensor in tensors.items()))


def read(file: Path) -> dict[str, Tensor] | None:
    """What `write` put there, None where it is missing or damaged."""
    try:
        found = arrays.load(file)
    except UserError:
        return None
    return {
        name.removesuffix(BRIEF): torch.from_numpy(array).view(torch.bfloat16)
        if name.endswith(BRIEF)
        else torch.from_numpy(array)
        for name, array in found.items()
    }


def plain(name: str, tensor: Tensor) -> tuple[str, NDArray[Any]]:
    """NumPy has no bfloat16."""
    return (
        (name + BRIEF, tensor.view(torch.int16).numpy())
        if tensor.dtype == torch.bfloat16
        else (name, tensor.numpy())
    )


def note(value: Any) -> Tensor:
    """What JSON can say, as a tensor."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def noted(tensor: Tensor) -> Any:
    return json.loads(tensor.numpy().tobytes())


@cache
def code(*sources: str) -> str:
    """A hash of modules and folders of this package, and torch's version."""
    files = [
        file
        for name in sources
        for file in (
            sorted((HERE / name).rglob("*.py")) if (HERE / name).is_dir() else [HERE / name]
        )
    ]
    return hashlib.sha256(
        torch.__version__.encode() + b"".join(file.read_bytes() for file in files)
    ).hexdigest()
