"""Makes the tables that `tables.yaml` declares. `latex`, `terminal` and the report show them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from replicate.reporting import expressions
from replicate.reporting.formatting import DASH, NOT_RUN

DECLARED = expressions.read("tables.yaml")


class Column(NamedTuple):
    """The name of a column, and how its values are shown.

    Attributes:
        format: turns a value into text; None if the column holds words, which are aligned left.
    """

    name: str
    format: Callable[[Any], str] | None = None

    def text(self, value: Any) -> str:
        """Returns a value as text."""
        if self.format is not None and value != NOT_RUN:
            return self.format(value)
        return DASH if value is None else str(value)


@dataclass(frozen=True)
class Table:
    """Values by row and column. A row that was not run has its first cells, and then NOT_RUN."""

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
        """The names of the rows if each row is only a name and NOT_RUN, else an empty list."""
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
    name: str, planned: Iterable[Hashable], found: Mapping[Any, Any], **context: Any
) -> Table:
    """Makes a table with a row for everything planned, and NOT_RUN where there is no record.

    Args:
        name: the name of the table in tables.yaml.
        planned: the key of every row; a tuple if it has several parts.
        found: the record of each key that was run.
        context: what the expressions in tables.yaml use besides `key` and `row`.
    """
    declared = DECLARED[name]
    heads, known, columns = declared["heads"], declared.get("known", {}), declared["columns"]
    rows = []
    for key in planned:
        parts = key if isinstance(key, tuple) else (key,)
        names = {"key": key, "row": found.get(key)} | context
        sources = known.values() if names["row"] is None else (known | columns).values()
        cells = [expressions.text(source, **names) for source in sources]
        end = [NOT_RUN] if names["row"] is None else []
        rows.append([*parts[: len(heads)], *cells, *end])
    filled = [Column(name, str if "|" in of else None) for name, of in (known | columns).items()]
    title = expressions.render(declared["title"], context)
    note = expressions.render(declared.get("note", ""), context)
    return Table(title, [*map(Column, heads), *filled], rows, note)
