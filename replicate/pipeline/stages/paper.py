"""Command `paper`: builds the PDF from LaTeX, with the same bytes each time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from replicate.errors import UserError

PACKAGES = "latexmk texlive-latex-recommended texlive-fonts-recommended lmodern"
LATEXMK = (  # -norc: without the user's settings, which may write the PDF elsewhere
    "latexmk -norc -pdf -cd -interaction=nonstopmode -halt-on-error -file-line-error -silent"
)
WARNING = re.compile(r"Warning:|^(Over|Under)full ")
# latexmk compares times and sizes of files, and misses a label that moved within one second
UNSETTLED = re.compile(r"Rerun to get|rerun LaTeX", re.IGNORECASE)
MOST = 3  # runs of latexmk
# LaTeX writes this date (November 2023) into the PDF instead of today's
DATED = {"SOURCE_DATE_EPOCH": "1700000000", "FORCE_SOURCE_DATE": "1"}


def check() -> None:
    """Checks that LaTeX is installed.

    Raises:
        UserError: latexmk is missing.
    """
    if shutil.which("latexmk") is None:
        install = f"apt-get install --no-install-recommends {PACKAGES}"
        raise UserError(f"latexmk is missing; install LaTeX: {install}")


def run(source: Path) -> None:
    """Builds the PDF beside `source`, and prints LaTeX's warnings.

    Raises:
        UserError: `source` is no LaTeX file, LaTeX is not installed, or it failed.
    """
    if not source.is_file() or source.suffix != ".tex":
        raise UserError(f"{source}: no LaTeX file; give one as paper/main.tex")
    check()
    file = source.with_suffix(".log")
    log = _latexmk(source, file)
    for _ in range(MOST - 1):
        if not any(map(UNSETTLED.search, log)):
            break
        log = _latexmk(source, file, "-g")
    for line in filter(WARNING.search, log):
        print(f"{file}: {line}")


def _latexmk(source: Path, file: Path, *options: str) -> list[str]:
    command = [*LATEXMK.split(), *options, str(source)]
    result = subprocess.run(command, env=os.environ | DATED, capture_output=True)
    log = file.read_text(errors="replace").splitlines() if file.is_file() else []
    if result.returncode:
        reasons = [line for line in log if ".tex:" in line or line.startswith("!")]
        reason = reasons[0] if reasons else f"see {file}"
        raise UserError(f"{source}: LaTeX stopped: {reason}; correct it and run the same command")
    return log
