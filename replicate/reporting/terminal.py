"""Prints tables: drawn on a terminal, otherwise one line per row. No cell is cut."""

from __future__ import annotations

import sys

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from replicate.reporting.formatting import DASH
from replicate.reporting.table import Table


def show(table: Table) -> None:
    """Prints a table.

    If standard output is a terminal and the numbers fit its width, the table is drawn, with its
    note below. Otherwise it is printed as plain lines, without the note.
    """
    drawn = Drawn(title=table.title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    drawn.padding = (0, 1, 0, 0)
    for place, column in enumerate(table.columns):
        cells = [cell_len(row[place]) for row in table.texts if place < len(row)]
        least = max(cells, default=0) if column.format or place == 0 else None  # words may wrap
        drawn.add_column(column.name, justify="right" if column.format else "left", min_width=least)
    for row in table.texts:
        drawn.add_row(*map(Text, row))
    console = Console(highlight=False)
    least = console.measure(drawn, options=console.options.update_width(1000)).minimum
    if not sys.stdout.isatty() or least + len(table.columns) > console.width:
        print("\n".join(plain(table)))
        return
    console.print(drawn)
    console.print(Text(table.note, "dim") if table.note else "")


def plain(table: Table) -> list[str]:
    """Returns the title, the names of the columns and the rows, one line each. Every row has a cell
    in every column. Cells are at least two spaces apart.
    """
    lacking = len(table.columns)
    rows = [[column.name for column in table.columns], *table.texts]
    rows = [[" ".join(cell.split()) or DASH for cell in row] for row in rows]
    rows = [row + [DASH] * (lacking - len(row)) for row in rows]
    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    lines = [table.title] if table.title else []
    for row in rows:
        cells = []
        for cell, width, column in zip(row, widths, table.columns, strict=True):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if column.format else cell + space)
        lines.append("  ".join(cells).rstrip())
    return lines
