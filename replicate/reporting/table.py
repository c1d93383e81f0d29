"""Tables of values. They become text when a writer shows them (`latex`, `terminal`, the report)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

from replicate.reporting.formatting import DASH, NOT_RUN


class Column(NamedTuple):
    """The name of a column, the source of its values, and how they are shown.

    Attributes:
        value: names of a record's attributes, separated by spaces, or a function of the record.
        format: turns a value into text. A column without it holds words and is aligned left.
    """

    name: str
    value: str | Callable[[Any], Any] = ""
    format: Callable[[Any], str] | None = None

    def of(self, record: Any) -> Any:
        """Returns the column's value for one record; a tuple if it names several attributes."""
        return (
            self.value(record) if callable(self.value) else attrgetter(*self.value.split())(record)
        )

    def text(self, value: Any) -> str:
        """Returns a value as text."""
        if self.format is not None and value != NOT_RUN:
            return self.format(value)
        return DASH if value is None else str(value)


@dataclass(frozen=True)
class Table:
    """Values by row and column. A row that was not run ends in NOT_RUN after its first cells."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    @cached_property
    def texts(self) -> list[list[str]]:
        """The cells as text. Rows that end in NOT_RUN are shorter than the others."""
        return [
            [column.text(value) for column, value in zip(self.columns, row, strict=False)]
            for row in self.rows
        ]

    @property
    def absent(self) -> list[str]:
        """The names of the rows, if every row is only a name and NOT_RUN; otherwise empty."""
        names = [row[0] for row in self.rows if row[-1] == NOT_RUN and len(row) == 2]
        return list(dict.fromkeys(names)) if len(names) == len(self.rows) else []

    def only(self, *names: str) -> Table:
        """Returns a table with only these columns, in this order, and without the note."""
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
    planned: Iterable[Hashable],
    found: Mapping[Any, Any],
    columns: Sequence[Column],
    note: str = "",
) -> Table:
    """Makes a table with a row for everything planned, and NOT_RUN where there is no record.

    Args:
        title: the title of the table.
        heads: the first columns, or their names; every row has values in them.
        planned: the key of every row. It is the row's first cell, or its first cells if a tuple.
        found: the record of each key that was run.
        columns: the columns that are filled from a record.
        note: one or more sentences below the table.
    """
    rows = []
    for key in planned:
        head = key if isinstance(key, tuple) else (key,)
        record = found.get(key)
        cells = [NOT_RUN] if record is None else [column.of(record) for column in columns]
        rows.append([*head, *cells])
    heads = [head if isinstance(head, Column) else Column(head) for head in heads]
    return Table(title, [*heads, *columns], rows, note)
