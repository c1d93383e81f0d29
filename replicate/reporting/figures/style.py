"""What all figures share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

RC: dict[Any, Any] = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.frameon": False,
    "legend.fontsize": 6,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "figure.dpi": 150,
    "pdf.fonttype": 42,
    "svg.hashsalt": "replicate",
}
# Okabe and Ito's colours: told apart in grey and by colour-blind eyes; the marker says it a second
# time.
LOOKS = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
)
WIDTH = 6.3  # inches, the text width
FAINT = "0.6"  # of lines that only guide the eye
DASHES = (0, (4, 2))


@contextmanager
def style() -> Iterator[None]:
    with plt.rc_context(RC):
        yield


def known(values: Sequence[float | None]) -> NDArray[np.float64]:
    """With NaN for null."""
    return np.array([np.nan if value is None else value for value in values], float)


def panel(axes: Axes, letter: str, title: str) -> None:
    """What one of several panels shows; the caption names it by its letter."""
    axes.set_title(rf"$\bf{{{letter}}}$   {title}")


def not_run(axes: Axes, what: str = "") -> None:
    """An empty panel that says so."""
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        f"{what}: not run" if what else "not run",
        ha="center",
        va="center",
        transform=axes.transAxes,
        color="0.4",
    )
