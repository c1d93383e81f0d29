"""Figures on disk, with the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

UNDATED = dict.fromkeys(("Date", "Creator", "Format", "Type"))
SCALABLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "replicate",
}  # text stays text: small, searched, in the reader's own fonts


def save(figure: Figure, path: Path) -> None:
    """As PDF for the write-up, SVG for the report and PNG for the screen, without date or versions;
    the figure is closed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(
        path.with_name(f"{path.name}.pdf"),
        metadata={"CreationDate": None, "Producer": None, "Creator": None},
    )
    figure.savefig(path.with_name(f"{path.name}.png"), metadata={"Software": None})
    with plt.rc_context(SCALABLE):
        figure.savefig(path.with_name(f"{path.name}.svg"), metadata=UNDATED)
    plt.close(figure)
