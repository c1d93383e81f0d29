"""results/ beside a reference, as git has it or another folder: what is reproduced, what differs,
what was not run. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from replicate.errors import UserError
from replicate.pipeline.config import Params
from replicate.pipeline.stages import sides
from replicate.pipeline.stages.sides import Tree
from replicate.reporting import terminal
from replicate.reporting.terminal import Cell, Column
from replicate.study import reproduction as verification
from replicate.study.reproduction import Comparison

STYLES = {
    "reproduced": "green",
    "differs": "bold red",
    "other parameters": "bold red",
    "changed": "yellow",
    "not run": "dim",
}
COLUMNS = (
    Column("by", rank=2, least=12),
    Column("here", right=True),
    Column("reference", right=True),
    Column("apart", right=True, rank=1),
    Column("verdict", least=14),
)
SHARED = ("calibration", "published")  # compared whatever the studies are


def run(
    params: Params, studies: Sequence[str], results: Path, reference: str | None, as_json: bool
) -> bool:
    """Prints the comparison. Whether nothing differs."""
    for name in studies:
        if name not in params.studies:
            raise UserError(
                f"study {name!r}: params.yaml has none of that name; give one of {', '.join(params.studies)}"
            )
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; run this from the project's root")
    remedy = "run the stage that writes it again, or take it from git"
    here, there = sides.in_folder(results, remedy), referred(reference, results)
    named = list(studies or params.studies)
    found = [
        pair
        for name in named
        for pair in verification.study(name, here.side(name), there.side(name))
    ]
    found += verification.calibration(here.side(""), there.side("")) + verification.published(
        here.side("published"), there.side("published")
    )
    found = verification.judge(found, params.claims.level)
    differences = [
        difference
        for name in named
        for difference in verification.provenance(name, here.side(name), there.side(name))
    ]
    files = dict(beside(here.files, there.files, named))
    answer = verification.answer(found, there.name)
    if as_json:
        whole = {
            "reference": there.name,
            "level": params.claims.level,
            "answer": answer,
            "files": files,
        }
        whole |= {
            "comparisons": [asdict(pair) for pair in found],
            "provenance": [asdict(difference) for difference in differences],
        }
        terminal.dump(whole)
    else:
        show(found, differences, files, there.name)
        terminal.say(answer, "bold")
    return not any(pair.status in ("differs", "other parameters") for pair in found)


def referred(reference: str | None, results: Path) -> Tree:
    """A folder, or what is committed: at HEAD where nothing is named, since `dvc repro` writes to
    the work tree alone.
    """
    revision = "HEAD" if reference is None else reference
    if reference and Path(reference).is_dir():
        return sides.in_folder(Path(reference))
    try:
        return sides.at_revision(revision, results)
    except UserError as error:
        raise UserError(f"{error}, or give a folder of results with --reference") from None


def beside(
    here: Mapping[str, bytes], there: Mapping[str, bytes], studies: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Which whole files are the same bytes."""
    for name in sorted({*here, *there}):
        head = name.partition("/")[0] if "/" in name else "calibration"
        if head in (*studies, *SHARED):
            only = "only in the reference" if name not in here else "only here"
            yield (
                name,
                ("identical" if here[name] == there[name] else "other bytes")
                if name in here and name in there
                else only,
            )


def show(
    found: Sequence[Comparison],
    differences: Sequence[verification.Difference],
    files: Mapping[str, str],
    reference: str,
) -> None:
    for study, pairs in groupby(found, key=lambda pair: pair.study):
        sides.show(
            f"{study}, beside {reference}",
            study,
            list(pairs),
            COLUMNS,
            cells,
            lambda pair: pair.status == "not run",
        )
    for difference in differences:
        values = (
            "not the same bytes"
            if difference.here is None
            else f"{difference.here} here, {difference.reference} in the reference"
        )
        terminal.say(
            f"{difference.study}: {difference.what}: {values} ({', '.join(difference.models)})"
        )
    same = sum(state == "identical" for state in files.values())
    others = [f"{name} ({state})" for name, state in files.items() if state != "identical"]
    terminal.say(
        f"{same} of {len(files)} files identical" + (f"; not {', '.join(others)}" if others else "")
    )


def cells(pair: Comparison, part: str) -> list[Cell | str]:
    verdict = "identical" if pair.identical and pair.status == "reproduced" else pair.status
    notes = (
        f" {pair.notes[0]}"
        if pair.status == "not run"
        else f": {'; '.join(pair.notes)}"
        if pair.notes
        else ""
    )
    shown = [
        pair.name,
        part,
        sides.value(pair.here),
        sides.value(pair.reference),
        sides.apart(pair),
    ]
    return [*shown, Cell(f"{verdict}{notes}", STYLES[pair.status])]
