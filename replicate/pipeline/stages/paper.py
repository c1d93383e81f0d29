"""LaTeX → PDF, with the same bytes each time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from replicate.errors import UserError

PACKAGES = "latexmk texlive-latex-recommended texlive-fonts-recommended lmodern"
WARNING = re.compile(r"Warning:|^(Over|Under)full ")  # none is waived: the write-up has no warning
EPOCH = "1700000000"  # November 2023: the date inside the PDF, instead of today's


def check() -> None:
    """Raises:
    UserError: LaTeX is not installed.
    """
    if shutil.which("latexmk") is None:
        raise UserError(
            f"latexmk is missing; install LaTeX: apt-get install --no-install-recommends {PACKAGES}"
        )


def run(source: Path) -> None:
    if not source.is_file() or source.suffix != ".tex":
        raise UserError(f"{source}: no LaTeX file; give one as paper/main.tex")
    check()
    command = [
        "latexmk",
        "-pdf",
        "-cd",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-file-line-error",
        "-silent",
        str(source),
    ]
    result = subprocess.run(
        command,
        env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH, "FORCE_SOURCE_DATE": "1"},
        capture_output=True,
        text=True,
    )
    log = (
        source.with_suffix(".log").read_text(errors="replace").splitlines()
        if source.with_suffix(".log").is_file()
        else []
    )
    if result.returncode:
        reason = next(
            (line for line in log if ".tex:" in line or line.startswith("!")), "see its log"
        )
        raise UserError(
            f"{source}: LaTeX stopped: {reason}; correct it and run the same command again"
        )
    for line in log:
        if WARNING.search(line):
            print(f"{source.with_suffix('.log')}: {line}")
