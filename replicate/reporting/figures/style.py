"""Sets what all figures share: fonts, colours, and files with the same bytes on every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from replicate.reporting.formatting import NOT_RUN

SHEET = ["default", "replicate.looks"]  # replicate/looks.mplstyle, whatever matplotlibrc says
with plt.style.context(SHEET):
    COLOURS = plt.rcParams["axes.prop_cycle"].by_key()["color"]
LOOKS = tuple(zip(COLOURS, "os^DvP", strict=True))  # a marker tells them apart without colour
WIDTH = 6.3  # inches, the text width
FAINT = {"color": "0.6", "linewidth": 0.6, "zorder": 0}  # lines that only guide the eye
DASHED: dict[str, Any] = {"color": "0.2", "linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 0}
UNDATED = {  # file format → metadata without dates and versions
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
}


@contextmanager
def style() -> Iterator[None]:
    """Sets fonts and colours. It decorates the functions that draw."""
    with plt.style.context(SHEET):
        yield


@style()
def save(figure: Figure, path: Path, kinds: Sequence[str] = tuple(UNDATED)) -> None:
    """Writes a figure as PDF for the paper and as SVG for the report, and closes it.

    Both have one layout: to compute it takes longer than to draw the figure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        figure.savefig(path.with_name(f"{path.name}.{kind}"), metadata=UNDATED[kind])
        figure.set_layout_engine(None)  # it stays as it is
    plt.close(figure)


def panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure of the text's width with panels side by side, two in a row if they are more
    than three; `height` is that of a row, in inches.
    """
    columns = count if count <= 3 else 2
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * height), layout="constrained", squeeze=False
    )
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat)[:count]


def title(axes: Axes, letter: str, text: str) -> None:
    """Sets the title of a panel. The caption refers to the panel by its letter."""
    axes.set_title(rf"$\bf{{{letter}}}$   {text}")


def ticks(axis: Axis) -> None:
    """Labels 1, 2 and 5 times each power of ten on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def known(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Returns the values as an array, with NaN for None."""
    return np.array([np.nan if value is None else value for value in values], float)


def not_run(axes: Axes, what: str) -> None:
    """Writes that `what` was not run in a panel that is otherwise empty."""
    axes.set_axis_off()
    place = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, f"{what}: {NOT_RUN}", color="0.4", **place)
