"""A table as the templates draw it: text alone, each number rounded before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`cells`: the first heads the row. A row that was not run has the cells that are known, and
    says so in place of the others.
    """

    cells: tuple[str, ...]
    not_run: bool = False
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """`words`: the first so many columns are text, the others numbers, set flush right."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    words: int = 1
    note: str = ""

    @property
    def absent(self) -> list[str]:
        """What the rows are of, each once, where none of them was run and nothing is known but
        their heads; else none.
        """
        bare = all(row.not_run and len(row.cells) <= self.words for row in self.rows)
        return list(dict.fromkeys(row.cells[0] for row in self.rows)) if bare else []


def row(*cells: str, strong: bool = False) -> Row:
    return Row(cells, strong=strong)


def not_run(*cells: str) -> Row:
    return Row(cells, not_run=True)
