r"""Writes text, rows of tables and named numbers as LaTeX. LaTeX owns layout and captions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from replicate.reporting.formatting import NOT_RUN
from replicate.reporting.table import Table
from replicate.study.records import JudgedClaim

PIECES = {  # a longer key must stand before a shorter one that it starts with
    "λ̂": r"$\llc$",
    "w*": "$w^*$",
    " %": r"\,\%",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "–": "--",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "½": r"$\tfrac12$",
    "γ": r"$\gamma$",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "β": r"$\beta$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "μ": r"$\mu$",
    "σ": r"$\sigma$",
    "∝": r"$\propto$",
    "ᵃ": "$^a$",
    "−": "$-$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "<": "$<$",
    ">": "$>$",
    "²": "$^2$",
    "⁴": "$^4$",
    "⁶": "$^6$",
    "₁": "$_1$",
    "₂": "$_2$",
    "₃": "$_3$",
}
PIECE = re.compile("|".join(map(re.escape, PIECES)))
POWER = re.compile(r" × 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def text(plain: str) -> str:
    r"""Returns plain text as LaTeX. NOT_RUN becomes the macro `\notrun`."""
    if plain == NOT_RUN:
        return r"\notrun"
    parts = POWER.split(re.sub(r"(?<=\d),(?=\d{3})", "\0", plain))
    parts[::2] = [PIECE.sub(lambda found: PIECES[found[0]], part) for part in parts[::2]]
    parts[1::2] = [rf"$\times10^{{{part.translate(LOWERED)}}}$" for part in parts[1::2]]
    return "".join(parts).replace("\0", r"\,")


def rows(table: Table) -> str:
    """Returns one line per row. In a row that was not run, NOT_RUN spans the remaining columns."""
    lines = []
    for row in table.texts:
        cells = [text(cell) for cell in row]
        if lacking := len(table.columns) - len(row):
            cells[-1] = rf"\multicolumn{{{lacking + 1}}}{{c}}{{{cells[-1]}}}"
        lines.append(" & ".join(cells) + " \\\\\n")
    return "".join(lines)


def values(prefix: str, named: Mapping[str, str]) -> str:
    r"""Returns `\setresult{prefix/key}{text}` for every named number, in alphabetical order."""
    lines = (f"\\setresult{{{prefix}/{key}}}{{{text(named[key])}}}\n" for key in sorted(named))
    return "".join(lines)


def undecided(claims: list[JudgedClaim]) -> str:
    """Returns a list item for each inconclusive claim; it says what would decide the claim."""
    open_ = [claim for claim in claims if claim.verdict == "inconclusive"]
    return (
        "".join(f"\\item[{each.id}] {text(each.why)}\n" for each in open_) or "\\item[--] None.\n"
    )


def write(fragments: Mapping[str, str], folder: Path) -> None:
    """Writes each fragment to `<name>.tex` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, fragment in fragments.items():
        (folder / f"{name}.tex").write_text(fragment, encoding="utf-8")
