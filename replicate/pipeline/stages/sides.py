"""One side of a comparison: results in a folder, or as git has them, and the params.yaml beside
them; and how both sides are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from pydantic import ValidationError
from yaml import YAMLError

from replicate.errors import UserError
from replicate.pipeline import git as revisions
from replicate.pipeline.config import Params
from replicate.pipeline.config import parse as parse_params
from replicate.reporting import terminal
from replicate.reporting.terminal import Cell, Column, Table
from replicate.study.findings import Found
from replicate.study.records import FILES, Record, parse
from replicate.study.reproduction import Comparison

PARAMS = "params.yaml"


@dataclass(frozen=True)
class Tree:
    """The files of one side, by their path in results/. `parameters`: of the params.yaml beside
    them, null where there is none, or none that this version reads.
    """

    name: str
    files: Mapping[str, bytes]
    remedy: str = "name another reference"
    parameters: Params | None = None

    def side(self, folder: str, stems: Collection[str] = tuple(FILES)) -> dict[str, list[Record]]:
        """The records of these files, as far as they are in a folder, "" for results/ itself.

        Raises:
            UserError: a file is damaged.
        """
        found = {}
        for stem in stems:
            kind, path = FILES[stem], f"{folder}/{stem}.json".lstrip("/")
            if path in self.files:
                try:
                    found[stem] = parse(self.files[path], kind)
                except (ValueError, TypeError, RecursionError) as error:
                    lack = f"is damaged, or of another version ({type(error).__name__})"
                    raise UserError(f"{self.name}: {path} {lack}; {self.remedy}") from None
        return found

    def studies(self) -> list[str]:
        """The folders with estimates, "" where they stand in none."""
        return [
            name.rpartition("/")[0]
            for name in self.files
            if name.count("/") < 2 and Path(name).name == "estimates.json"
        ]


def in_folder(path: Path, remedy: str = "name another reference") -> Tree:
    """Raises:
    UserError: a file cannot be read.
    """
    beside = [place / PARAMS for place in (path.absolute().parent, path.absolute().parent.parent)]
    text = next((file.read_bytes() for file in beside if file.is_file()), None)
    return Tree(str(path), files(path), remedy, parameters(text))


def files(path: Path) -> dict[str, bytes]:
    """The JSON files under a folder, by their path in it.

    Raises:
        UserError: one cannot be read.
    """
    try:
        return {
            file.relative_to(path).as_posix(): file.read_bytes()
            for file in sorted(path.rglob("*.json"))
            if file.is_file()
        }
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}); see its permissions"
        ) from None


def at_revision(revision: str, results: Path) -> Tree:
    """What is committed.

    Raises:
        UserError: git has no such commit, or no results there.
    """
    commit = revisions.commit(revision)
    found = revisions.files(commit, results)
    try:
        text = revisions.git("show", f"{commit}:./{PARAMS}")
    except UserError:
        text = None
    return Tree(f"{revision} ({commit[:7]})", found, parameters=parameters(text))


def parameters(text: bytes | None) -> Params | None:
    try:
        return None if text is None else parse_params(text.decode())
    except (UserError, ValidationError, YAMLError, ValueError, RecursionError):
        return None


# For people


def show(
    title: str,
    study: str,
    pairs: Sequence[Comparison],
    columns: Sequence[Column],
    cells: Callable[[Comparison, str], Sequence[Cell | str]],
    empty: Callable[[Comparison], bool],
) -> None:
    """A table for each group of comparisons; on a terminal a row for the identical ones of a name,
    and for the `empty` ones for the same reason. In plain lines one table, whose rows tell all.
    """
    if not terminal.seen():
        heads = [Column(name) for name in ("study", "compared", "of")]
        terminal.show(
            Table(
                "",
                [*heads, *columns],
                [[study, pair.group, *cells(pair, pair.part)] for pair in pairs],
            )
        )
        return
    terminal.say(title, "bold")
    for group, members in groupby(pairs, key=lambda pair: pair.group):
        rows = [cells(pair, part) for pair, part in gathered(list(members), empty)]
        terminal.show(Table("", [Column(group, least=12), *columns], rows))


def gathered(
    members: Sequence[Comparison], empty: Callable[[Comparison], bool]
) -> Iterator[tuple[Comparison, str]]:
    """Each comparison with its part; the identical ones of a name as one, and so the `empty` ones
    for the same reason.
    """
    for _, mine in groupby(
        (pair for pair in members if not empty(pair)), key=lambda pair: pair.name
    ):
        alike = list(mine)
        if len(alike) > 1 and all(pair.identical for pair in alike):
            yield alike[0], f"{alike[0].part} + {len(alike) - 1}"
        else:
            yield from ((pair, pair.part) for pair in alike)
    missing: dict[tuple[str, ...], list[Comparison]] = {}
    for pair in members:
        if empty(pair):
            missing.setdefault(pair.notes, []).append(pair)
    for pairs in missing.values():
        yield replace(pairs[0], name=", ".join(dict.fromkeys(pair.name for pair in pairs))), ""


def value(found: Found | None) -> str:
    if found is None or found.value is None:
        return "–"
    if isinstance(found.value, str):
        return found.value
    if not found.error:
        return f"{found.value:.5g}"
    return f"{found.value:,.{digits(found)}f} ± {found.error:,.{digits(found)}f}"


def digits(found: Found | None) -> int:
    """Decimal places that show two digits of the error."""
    return max(0, 1 - math.floor(math.log10(found.error))) if found and found.error else 2


def apart(pair: Comparison) -> str:
    return "" if pair.apart is None else f"{pair.apart:.1f} s.e."
