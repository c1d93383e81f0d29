"""What interrupted work finds again: tensors on disk, in folders named by a hash of all that they depend on, code included.

What was computed otherwise is never picked up. A file is there as a whole or not at all, and carries a hash of what is in it: a damaged
one counts as missing.
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
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent


def folder(root: Path, sources: Sequence[str], inputs: Sequence[Path], settings: Any) -> Path:
    """For what depends on `sources`, modules and folders of this package; on `inputs`, files or folders; and on `settings`, as JSON has
    them.
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
    """As a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(own, partial, metadata={"sha256": fingerprint(own)})
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read(file: Path) -> dict[str, Tensor] | None:
    """What `write` put there, None where it is missing or damaged."""
    try:
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            return tensors if (stored.metadata() or {}).get("sha256") == fingerprint(tensors) else None
    except Exception:  # safetensors' many ways to say that a file is missing or damaged
        return None


def note(value: Any) -> Tensor:
    """What JSON can say, as a tensor."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def noted(tensor: Tensor) -> Any:
    return json.loads(tensor.numpy().tobytes())


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@cache
def code(*sources: str) -> str:
    """A hash of modules and folders of this package, and torch's version."""
    files = [file for name in sources for file in (sorted((HERE / name).glob("*.py")) if (HERE / name).is_dir() else [HERE / name])]
    return hashlib.sha256(torch.__version__.encode() + b"".join(file.read_bytes() for file in files)).hexdigest()
