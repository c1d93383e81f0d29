"""Finished chains on disk, so that interrupted work resumes: a mapping from a chain's key to the chain, one file each.

The folder is keyed by a hash of all that the chains depend on: what was computed under other parameters is never picked up.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from replicate.sampling import Chain


class Checkpoints(MutableMapping[tuple[int, int], Chain]):
    def __init__(self, root: Path, inputs: list[Path], settings: Any) -> None:
        """`inputs`: files or folders that the chains depend on; `settings`: all else, as JSON has it."""
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for path in inputs:
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
        self.folder = root / digest.hexdigest()[:16]

    def _file(self, key: tuple[int, int]) -> Path:
        return self.folder / "-".join(map(str, ("chain", *key)))

    def __getitem__(self, key: tuple[int, int]) -> Chain:
        try:
            return Chain(**load_file(self._file(key)))
        except Exception:  # missing, or cut off by whatever interrupted the run: the chain is run again
            raise KeyError(key) from None

    def __setitem__(self, key: tuple[int, int], chain: Chain) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._file(key).with_suffix(f".{os.getpid()}")
        save_file({"loss": chain.loss, "init_loss": chain.init_loss, "seconds": chain.seconds}, partial)
        partial.replace(self._file(key))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and key in set(self)

    def __delitem__(self, key: tuple[int, int]) -> None:
        self._file(key).unlink()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for file in sorted(self.folder.glob("chain-*")):
            parts = file.name.split("-")
            if "." not in file.name:
                yield int(parts[1]), int(parts[2])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
