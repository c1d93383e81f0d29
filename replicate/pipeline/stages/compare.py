"""Command `compare`: compares two sets of results, by default the work tree's with HEAD's.

The command needs no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from replicate.data.json_io import rounded
from replicate.errors import UserError
from replicate.pipeline import git
from replicate.pipeline.config import Config
from replicate.reporting import formatting, terminal
from replicate.reporting.table import Column, Table
from replicate.study import records, reproduction
from replicate.study.records import agreement


@dataclass(frozen=True)
class Results:
    """One of the two sets of results: those of several studies, or of one.

    Attributes:
        label: the name of the set in tables and messages.
        studies: records by study; the study is "" if the results are those of one study's folder.
        study: the study to compare; None for all.
    """

    label: str
    studies: dict[str, dict[str, Any]]
    study: str | None


def run(config: Config, a: str | None, b: str | None, as_json: bool) -> bool:
    """Prints how `a` (the work tree's results if None) compares with `b` (HEAD if None).

    Returns:
        True if no comparison has the status `differs` or `not comparable`, and `a` lacks nothing
        that `b` has of the same study.

    Raises:
        UserError: a name refers to no results, or a set of results lacks the study to compare.
    """
    mine, theirs = _results(config, a or str(config.paths.results)), _results(config, b or "HEAD")
    found: list[reproduction.Comparison] = []
    lacking: list[str] = []
    for x, y in _pairs(mine, theirs):
        planned = tuple(config.plan(x).models) if x == y and x in config.studies else ()
        name = x if x == y else f"{x or mine.label} | {y or theirs.label}"
        pair = mine.studies.get(x, {}), theirs.studies.get(y, {})
        pairs = reproduction.compare(name, *pair, planned)
        if x == y:
            lacking += [f"{each.kind} of {each.name}" for each in pairs if each.lost]
            lacking += [f"{file} of {name}" for file in reproduction.lacking(*pair)]
        found += pairs
    found = reproduction.judge(found, config.claims.level)
    answer = reproduction.answer(found, mine.label, theirs.label)
    if lacking:
        answer += f" What {mine.label} lacks: {', '.join(dict.fromkeys(lacking))}."
    if as_json:
        whole = {"a": mine.label, "b": theirs.label, "answer": answer}
        whole |= {"comparisons": [asdict(pair) for pair in found]}
        print(json.dumps(rounded(whole), indent=1))
    else:
        terminal.show(_table(found, mine.label, theirs.label))
        print(answer)
    return not lacking and not any(x.status in ("differs", "not comparable") for x in found)


def _results(config: Config, text: str) -> Results:
    """Reads what a name refers to: STUDY, FOLDER, REVISION, FOLDER:STUDY or REVISION:STUDY."""
    place, _, study = text.partition(":")
    if text in config.studies:
        place, study = str(config.paths.results), text
    if place and (folder := Path(place)).is_dir():
        label, paths = text, sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    else:
        try:
            commit = git.commit(place)
            label, files = f"{text} ({commit[:7]})", git.files(commit, config.paths.results)
        except UserError as error:
            others = f"a study ({', '.join(config.studies)}) or a folder of results"
            raise UserError(f"{error}; name another commit, {others}") from None
    studies = _read(label, files)
    return Results(label, studies, study or ("" if "" in studies else None))


def _read(label: str, files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Reads the records in the files of a folder (path → bytes), by study."""
    found: dict[str, dict[str, Any]] = {}
    for path, text in files.items():
        *folder, file = path.split("/")
        name = file.removesuffix(".json")
        if name in records.FILES and len(folder) < 2:
            try:
                rows = records.parse(text, records.FILES[name])
            except (ValueError, RecursionError) as error:
                said = f"{path} is damaged or old: {records.explain(error)}"
                raise UserError(f"{label}: {said}; run `dvc repro`") from None
            found.setdefault("".join(folder), {})[name] = rows
    for study, rows in found.items():
        lacking = sorted(records.COLLECTED.keys() - rows.keys())
        if len(lacking) == len(records.COLLECTED):  # a folder that `collect` does not write
            continue
        wrong = f"{lacking[0]}.json is missing" if lacking else agreement.disagreement(rows)
        if wrong:
            raise UserError(f"{label}: {Path(study, wrong)}; run `dvc repro`")
    if not found:
        raise UserError(f"{label} has no results; run `dvc repro` or name another place")
    return found


def _pairs(a: Results, b: Results) -> list[tuple[str, str]]:
    """Returns the pairs of studies to compare. If only `a` or `b` names a study, both use it."""
    if a.study is None and b.study is None:
        return [(study, study) for study in dict.fromkeys([*b.studies, *a.studies])]
    x = (a.study if a.study is not None else b.study) or ""
    y = (b.study if b.study is not None else a.study) or ""
    for results, study in ((a, x), (b, y)):
        if study not in results.studies:
            remedy = f"name one of {', '.join(results.studies)} as PLACE:STUDY"
            raise UserError(f"{results.label}: no results of a study {study!r}; {remedy}")
    return [(x, y)]


def _table(found: list[reproduction.Comparison], a: str, b: str) -> Table:
    heads = [Column(name) for name in ("study", "compared", "of", "by")]
    values = [Column(name, format=_told) for name in (a, b)]
    apart = Column("errors apart", format=lambda apart: formatting.number(apart, 2))
    rows = []
    for pair in found:
        result = "identical" if pair.identical else pair.status
        result += f": {'; '.join(pair.notes)}" if pair.notes else ""
        names = (pair.study, pair.kind, pair.name, pair.part)
        rows.append([*names, pair.a, pair.b, pair.apart, result])
    return Table("", [*heads, *values, apart, Column("result")], rows)


def _told(outcome: reproduction.Outcome | None) -> str:
    if outcome is None:
        return formatting.DASH
    value, error = outcome.value, outcome.error
    return value if isinstance(value, str) else formatting.with_error((value, error))
