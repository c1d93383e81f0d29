"""Finished chains on disk, and where an unfinished one rests, so that interrupted work goes on
where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import torch

from replicate.pipeline import cache as kept
from replicate.sampling import Chain

SOURCES = ("sampling", "models", "data", "seeds.py", "pipeline/stages/chains.py")


class Checkpoints(MutableMapping[tuple[int, int], Chain]):
    """By (group, chain); a file each."""

    def __init__(
        self, root: Path, inputs: list[Path], settings: Any, every: float = float("inf")
    ) -> None:
        """`inputs`: files or folders that the chains depend on; `settings`: all else, as JSON has
        it. `every`: seconds of a chain after which it rests.
        """
        self.folder, self.every = kept.folder(root, SOURCES, inputs, settings), every

    def _file(self, kind: str, key: tuple[int, int]) -> Path:
        return self.folder / "-".join(map(str, (kind, *key)))

    def rest(self, key: tuple[int, int]) -> kept.Rest:
        """Where the chains that begin with this one rest."""
        return kept.Rest(self._file("rest", key), self.every)

    def __getitem__(self, key: tuple[int, int]) -> Chain:
        found = kept.read(self._file("chain", key))
        if found is None:
            raise KeyError(key)
        return Chain(**{name: tensor.numpy() for name, tensor in found.items()})

    def __setitem__(self, key: tuple[int, int], chain: Chain) -> None:
        kept.write(
            self._file("chain", key),
            {name: torch.from_numpy(array) for name, array in vars(chain).items()},
        )

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and kept.read(self._file("chain", key)) is not None

    def __delitem__(self, key: tuple[int, int]) -> None:
        self._file("chain", key).unlink()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for file in sorted(self.folder.glob("chain-*")):
            key = tuple(map(int, file.name.split("-")[1:])) if not file.suffix else ()
            if len(key) == 2 and key in self:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def finish(self) -> None:
        """Leaves the chains to be swept away when the next stage starts: until DVC has taken the
        output, they are all there is.
        """
        kept.finish(self.folder)
