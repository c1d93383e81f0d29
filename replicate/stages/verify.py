"""results/ beside a reference, as git has it or another folder: what is reproduced, what differs, what was not run. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from replicate import revisions, verification
from replicate.errors import UserError
from replicate.findings import Found
from replicate.params import Params
from replicate.results import FILES, Record, parse
from replicate.verification import Comparison

STYLES = {"reproduced": "green", "differs": "bold red", "other parameters": "bold red", "changed": "yellow", "not run": "dim"}
SHARED = ("calibration", "published")  # compared whatever the studies are


@dataclass(frozen=True)
class Tree:
    """The files of one side, by their path in results/."""

    name: str
    files: Mapping[str, bytes]
    remedy: str = "name another reference"

    def side(self, folder: str) -> dict[str, list[Record]]:
        """The records of what is in a folder, "" for results/ itself.

        Raises:
            UserError: a file is damaged.
        """
        found = {}
        for stem, kind in FILES.items():
            path = f"{folder}/{stem}.json".lstrip("/")
            if path in self.files:
                try:
                    found[stem] = parse(self.files[path], kind)
                except (ValueError, TypeError, RecursionError) as error:
                    lack = f"is damaged, or of another version ({type(error).__name__})"
                    raise UserError(f"{self.name}: {path} {lack}; {self.remedy}") from None
        return found


def run(params: Params, studies: Sequence[str], results: Path, reference: str | None, as_json: bool) -> bool:
    """Prints the comparison. Whether nothing differs."""
    for name in studies:
        if name not in params.studies:
            raise UserError(f"study {name!r}: params.yaml has none of that name; give one of {', '.join(params.studies)}")
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; run this from the project's root")
    remedy = "run the stage that writes it again, or take it from git"
    here, there = Tree(str(results), folder(results), remedy), referred(reference, results)
    named = list(studies or params.studies)
    found = [pair for name in named for pair in verification.study(name, here.side(name), there.side(name))]
    found += verification.calibration(here.side(""), there.side("")) + verification.published(
        here.side("published"), there.side("published")
    )
    found = verification.judge(found, params.claims.level)
    differences = [difference for name in named for difference in verification.provenance(name, here.side(name), there.side(name))]
    files = dict(beside(here.files, there.files, named))
    answer = verification.answer(found, there.name)
    if as_json:
        whole = {"reference": there.name, "level": params.claims.level, "answer": answer, "files": files}
        whole |= {"comparisons": [asdict(pair) for pair in found], "provenance": [asdict(difference) for difference in differences]}
        print(json.dumps(finite(whole), ensure_ascii=False, indent=1))
    else:
        show(found, differences, files, there.name)
        print(answer)
    return not any(pair.status in ("differs", "other parameters") for pair in found)


def folder(path: Path) -> dict[str, bytes]:
    """The JSON files under a folder, by their path in it.

    Raises:
        UserError: one cannot be read.
    """
    try:
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*.json")) if file.is_file()}
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); see its permissions") from None


def referred(reference: str | None, results: Path) -> Tree:
    """A folder, or what is committed: at HEAD where nothing is named, since `dvc repro` writes to the work tree alone."""
    revision = "HEAD" if reference is None else reference
    if reference and Path(reference).is_dir():
        return Tree(reference, folder(Path(reference)))
    try:
        commit = revisions.commit(revision)
        return Tree(f"{revision} ({commit[:7]})", revisions.files(commit, results))
    except UserError as error:
        raise UserError(f"{error}, or give a folder of results with --reference") from None


def beside(here: Mapping[str, bytes], there: Mapping[str, bytes], studies: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Which whole files are the same bytes."""
    for name in sorted({*here, *there}):
        head = name.partition("/")[0] if "/" in name else "calibration"
        if head in (*studies, *SHARED):
            only = "only in the reference" if name not in here else "only here"
            yield name, ("identical" if here[name] == there[name] else "other bytes") if name in here and name in there else only


def show(found: Sequence[Comparison], differences: Sequence[verification.Difference], files: Mapping[str, str], reference: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=120, no_color=True)
    for study, pairs in groupby(found, key=lambda pair: pair.study):
        table = Table(title=f"{study}, beside {reference}", title_justify="left", box=SIMPLE_HEAD if console.is_terminal else None)
        for column in ("", "", "here", "reference", "apart", "", ""):
            table.add_column(column, justify="right" if column else "left", no_wrap=column == "apart")
        for group, members in groupby(pairs, key=lambda pair: pair.group):
            table.add_row(Text(group, "bold"))
            for line in rows(list(members)):
                table.add_row(*line)
            table.add_section()
        console.print(table)
    for difference in differences:
        values = "not the same bytes" if difference.here is None else f"{difference.here} here, {difference.reference} in the reference"
        console.print(Text(f"{difference.study}: {difference.what}: {values} ({', '.join(difference.models)})"))
    same = sum(state == "identical" for state in files.values())
    others = [f"{name} ({state})" for name, state in files.items() if state != "identical"]
    print(f"{same} of {len(files)} files identical" + (f"; not {', '.join(others)}" if others else ""))


def rows(members: Sequence[Comparison]) -> Iterator[list[Text]]:
    """A line for each comparison; one for the identical ones of a name, and one for all that were not run on the same side."""
    for name, mine in groupby((pair for pair in members if pair.status != "not run"), key=lambda pair: pair.name):
        alike = list(mine)
        if len(alike) > 1 and all(pair.identical for pair in alike):
            yield cells(name, f"{alike[0].part} + {len(alike) - 1}", alike[0])
        else:
            yield from (cells(name, pair.part, pair) for pair in alike)
    missing: dict[str, list[str]] = {}
    for pair in members:
        if pair.status == "not run" and pair.name not in missing.setdefault(pair.notes[0], []):
            missing[pair.notes[0]].append(pair.name)
    for side, names in missing.items():
        yield [Text(", ".join(names)), *(Text("") for _ in range(4)), Text(f"not run {side}", STYLES["not run"])]


def cells(name: str, part: str, pair: Comparison) -> list[Text]:
    verdict = "identical" if pair.identical and pair.status == "reproduced" else pair.status
    apart = "" if pair.apart is None else f"{pair.apart:.1f} s.e."
    shown = [Text(name), Text(part), Text(value(pair.here)), Text(value(pair.reference)), Text(apart)]
    return [*shown, Text(verdict, STYLES[pair.status]), Text("; ".join(pair.notes))]


def value(found: Found | None) -> str:
    if found is None or found.value is None:
        return "–"
    if isinstance(found.value, str):
        return found.value
    if not found.error:
        return f"{found.value:.5g}"
    digits = max(0, 1 - math.floor(math.log10(found.error)))  # two of the error
    return f"{found.value:,.{digits}f} ± {found.error:,.{digits}f}"


def finite(value: object) -> object:
    """null for a number that is not finite, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
