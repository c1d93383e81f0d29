"""What people and programs read of a command: tables and sentences fitted to the terminal, in
colour unless NO_COLOR is set; where there is none, plain lines, a row each and none cut short,
whose columns stand two spaces or more apart; and JSON.
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

GAP = 2  # spaces between two columns
NOTHING = "–"  # of a cell, in plain lines, so that every row has as many


class Cell(NamedTuple):
    """`style`: in rich's words; seen on a terminal alone."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Column:
    """`rank`: on a narrow terminal those of the greatest are left out first, those of 0 never.
    `least`: cells of the screen to which it may be folded; 0: it is not folded.
    """

    name: str
    right: bool = False
    rank: int = 0
    least: int = 0


@dataclass
class Table:
    """`grouped`: on a terminal a first cell is blank where it says what the one above it says."""

    title: str
    columns: Sequence[Column]
    rows: list[Sequence[Cell | str]] = field(default_factory=list)
    grouped: bool = False


def seen() -> bool:
    """Whether a person looks on."""
    return sys.stdout.isatty()


def show(table: Table) -> None:
    rows = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in table.rows]
    if not seen():
        for line in plain(table.columns, rows):
            print(line)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console(highlight=False)
    kept = fitted(table.columns, rows, console.width)
    drawn = Drawn(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
        header_style="dim",
        collapse_padding=True,
    )
    for i in kept:
        column = table.columns[i]
        drawn.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not column.least,
            overflow="fold",
        )
    sizes = Counter(row[0] for row in rows)
    for before, row in pairwise([None, *rows]):
        assert row is not None
        again = table.grouped and before is not None and before[0] == row[0]
        if (
            before is not None
            and table.grouped
            and not again
            and max(sizes[before[0]], sizes[row[0]]) > 1
        ):
            drawn.add_section()
        drawn.add_row(*(Text("" if again and i == 0 else row[i].text, row[i].style) for i in kept))
    if table.title:
        console.print(Text(table.title, "bold"))
    console.print(drawn)
    if names := ", ".join(
        column.name
        for i, column in enumerate(table.columns)
        if i not in kept and any(row[i].text for row in rows)
    ):
        console.print(Text(f"no room for {names}: widen the terminal, or --json", "dim"))
    console.print()


def plain(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """A line for the names of the columns and one for each row."""
    texts = [
        [column.name for column in columns],
        *([" ".join(cell.text.split()) or NOTHING for cell in row] for row in rows),
    ]
    widths = [max(map(width, texts_of_column)) for texts_of_column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        room = [" " * (wide - width(text)) for text, wide in zip(row, widths, strict=True)]
        cells = [
            space + text if column.right else text + space
            for text, space, column in zip(row, room, columns, strict=True)
        ]
        lines.append((" " * GAP).join(cells).rstrip())
    return lines


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], room: int) -> list[int]:
    """The columns for which there is room, of those that say anything."""
    natural = [
        max(width(line) for text in texts for line in text.split("\n"))
        for texts in texts_by_column(columns, rows)
    ]
    least = [min(wide, column.least or wide) for wide, column in zip(natural, columns, strict=True)]
    kept = [i for i in range(len(columns)) if any(row[i].text for row in rows)]
    while sum(least[i] for i in kept) + GAP * (len(kept) - 1) > room and any(
        columns[i].rank for i in kept
    ):
        kept.remove(max(kept, key=lambda i: columns[i].rank))
    return kept


def texts_by_column(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    return [[column.name, *(row[i].text for row in rows)] for i, column in enumerate(columns)]


def width(text: str) -> int:
    """Cells of the screen: an accent stands over its letter."""
    return sum(not unicodedata.combining(letter) for letter in text)


def say(text: str, style: str = "") -> None:
    """A sentence, parted at its words where a terminal is narrow."""
    if not seen():
        print(text)
        return
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text(text, style))


def dump(value: object) -> None:
    """For programs: one JSON value and nothing else."""
    print(json.dumps(finite(value), ensure_ascii=False, indent=1))


def finite(value: object) -> object:
    """null for a number that is not finite, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spell(seconds: float) -> str:
    """As people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says what is being waited for, while a person looks on; nothing is left of it."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
