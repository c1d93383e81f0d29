"""A table whose cells are values until a writer shows them (`latex`, `terminal`, the report)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

from replicate.reporting.formatting import DASH, NOT_RUN


class Column(NamedTuple):
    """What one column is called, where its values come from, and how they are shown.

    Attributes:
        value: the names of attributes of a record, or a function of it.
        format: turns a value into text; without one the column holds words, set flush left.
    """

    name: str
    value: str | Callable[[Any], Any] = ""
    format: Callable[[Any], str] | None = None

    def of(self, record: Any) -> Any:
        """Returns the column's value of one record."""
        return (
            self.value(record) if callable(self.value) else attrgetter(*self.value.split())(record)
        )

    def text(self, value: Any) -> str:
        """Returns a value as it is shown."""
        if self.format is not None and value != NOT_RUN:
            return self.format(value)
        return DASH if value is None else str(value)


@dataclass(frozen=True)
class Table:
    """Values by row and column; a row of which only the first cells are known ends in NOT_RUN."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    @cached_property
    def texts(self) -> list[list[str]]:
        """The cells as they are shown; the rows that end in NOT_RUN are shorter."""
        return [
            [column.text(value) for column, value in zip(self.columns, row, strict=False)]
            for row in self.rows
        ]

    @property
    def absent(self) -> list[str]:
        """What the rows are of, where none of them was run and nothing but their names is known."""
        names = [row[0] for row in self.rows if row[-1] == NOT_RUN and len(row) == 2]
        return list(dict.fromkeys(names)) if len(names) == len(self.rows) else []

    def only(self, *names: str) -> Table:
        """Returns the table with these columns alone, in this order, and without its note."""
        places = [[column.name for column in self.columns].index(name) for name in names]
        rows = []
        for row in self.rows:
            short = len(row) < len(self.columns)
            known = [row[i] for i in places if i < len(row) - short]
            rows.append([*known, NOT_RUN] if short and len(known) < len(names) else known)
        return Table(self.title, [self.columns[i] for i in places], rows)


def tabulate(
    title: str,
    heads: Sequence[str | Column],
    asked: Iterable[Hashable],
    found: Mapping[Any, Any],
    columns: Sequence[Column],
    note: str = "",
) -> Table:
    """Makes a table of what is asked for, with what was found.

    Args:
        title: of the table.
        heads: names of the first columns, which are known of every row.
        asked: the key of every row, which is also its first cells (a tuple where they are several).
        found: the record of each key that was run.
        columns: what is shown of a record.
        note: a sentence below the table.
    """
    rows = []
    for key in asked:
        head = key if isinstance(key, tuple) else (key,)
        record = found.get(key)
        cells = [NOT_RUN] if record is None else [column.of(record) for column in columns]
        rows.append([*head, *cells])
    heads = [head if isinstance(head, Column) else Column(head) for head in heads]
    return Table(title, [*heads, *columns], rows, note)
