"""Progress of long work: a bar with an estimate of what is left on a terminal, plain lines
elsewhere; and what such work asks of the place where it rests.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

INTERVAL = 15.0  # seconds between plain lines


class Advance(Protocol):
    def __call__(self, steps: int = 1, note: str = "") -> None: ...


class Rest(Protocol):
    """Where work can be interrupted and go on: it asks for the last state, offers the present one
    now and then, and drops it at its end.
    """

    def load(self) -> dict[str, Tensor] | None: ...

    def offer(self, state: Callable[[], Mapping[str, Tensor]]) -> None: ...

    def drop(self) -> None: ...


class Restless:
    """For work that is short, or begun anew."""

    def load(self) -> None:
        return None

    def offer(self, state: object) -> None: ...

    def drop(self) -> None: ...


@contextmanager
def progress(label: str, total: int, rank: int = 0) -> Iterator[Advance]:
    """Shows `label` until all of `total` steps are done; the body calls the yielded function as it
    goes on. Of several processes that do the same only the first, of rank 0, shows it.
    """
    if rank:
        yield lambda steps=1, note="": None
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total, note="")

            def advance(steps: int = 1, note: str = "") -> None:
                bar.update(task, advance=steps, note=note)

            yield advance
        return

    start = shown = time.monotonic()
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, shown
        done += steps
        now = time.monotonic()
        if now - shown >= INTERVAL or done == total:
            shown = now
            left = (now - start) / done * (total - done)
            print(
                f"{label}: {done}/{total}, {left:.0f} s left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    yield advance
