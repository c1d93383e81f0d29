"""Shows progress and remaining time of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

INTERVAL = 15.0  # seconds between plain lines
after: float | None = None  # expected seconds of work that follows, such as later stages


class Advance(Protocol):
    """Reports that `steps` more steps are done, with a note that is shown beside the progress."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


def silent(steps: int = 1, note: str = "") -> None:
    """Does nothing; it is the `Advance` of work whose progress is not shown."""


@contextmanager
def progress(label: str, total: int, shown: bool = True) -> Iterator[Advance]:
    """Shows how many steps are done and the remaining time, on standard error or in a notebook.

    Args:
        label: the name of the work.
        total: the number of steps.
        shown: whether anything is shown.

    Yields:
        The function by which the body of the `with` statement reports its steps.
    """
    if not shown:
        yield silent
    elif sys.stderr.isatty():
        with _bar(label, total) as advance:
            yield advance
    elif cell := _notebook_cell():
        yield _lines(label, total, 0.5, cell)
    else:
        yield _lines(label, total, INTERVAL, lambda line: print(line, file=sys.stderr, flush=True))


@contextmanager
def _bar(label: str, total: int) -> Iterator[Advance]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        then = "" if after is None else f" (then {after:.0f} s)"
        task = bar.add_task(f"{label}{then}", total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance


def _notebook_cell() -> Callable[[str], None] | None:
    """Returns a function that replaces the line below a notebook cell; None outside a notebook."""
    from importlib import import_module

    shell = import_module("IPython").get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return None
    handle = import_module("IPython.display").display({"text/plain": ""}, raw=True, display_id=True)
    return lambda line: handle.update({"text/plain": line}, raw=True)


def _lines(label: str, total: int, interval: float, write: Callable[[str], None]) -> Advance:
    start = shown = time.monotonic()
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, shown
        done += steps
        now = time.monotonic()
        if done and (now - shown >= interval or done == total):
            shown = now
            left = (now - start) / done * (total - done)
            whole = "" if after is None else f" ({left + after:.0f} s of all)"
            write(f"{label}: {done}/{total}, {left:.0f} s left{whole} {note}".rstrip())

    return advance
