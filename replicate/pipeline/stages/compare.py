"""Two studies, or two variants of one, side by side: λ̂ with the difference in standard errors,
losses, settings, verdicts. No torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from replicate.errors import UserError
from replicate.pipeline.config import Params
from replicate.pipeline.stages import asked, sides
from replicate.pipeline.stages.sides import Tree
from replicate.reporting import terminal
from replicate.reporting.terminal import Cell, Column, Table
from replicate.study import contrast
from replicate.study import reproduction as verification
from replicate.study.reproduction import Comparison

STYLES = {
    "differ": "bold red",
    "opposite": "bold red",
    "not comparable": "yellow",
    "other": "yellow",
    "not run": "dim",
    "not compared": "dim",
}
WORDS = {
    "reproduced": "within errors",
    "differs": "differ",
    "changed": "other",
    "other parameters": "not comparable",
    "not run": "not run",
}
VERDICTS = WORDS | {"reproduced": "same", "differs": "opposite"}


LONGEST = 24  # letters of a side's name over its column


@dataclass(frozen=True)
class Side:
    """`study`: the one that was named, null for all that there are."""

    label: str
    tree: Tree
    study: str | None


def run(
    params: Params,
    names: tuple[str, str],
    studies: Sequence[str],
    results: Path,
    estimator: str,
    as_json: bool,
) -> None:
    """Prints the comparison."""
    a, b = (side(name, params, results) for name in names)
    pairs = matched(a, b, studies)
    found: list[Comparison] = []
    for x, y in pairs:
        mine, theirs = a.tree.side(x, contrast.FILES), b.tree.side(y, contrast.FILES)
        known_to(mine, theirs, estimator, (a.label, b.label))

        @cache
        def obstacles(
            model: str, mine: verification.Side = mine, theirs: verification.Side = theirs
        ) -> contrast.Obstacles:
            own, other = a.tree.parameters, b.tree.parameters
            return asked.obstacles(
                asked.known(model, mine, own, (other, params)),
                asked.known(model, theirs, other, (own, params)),
            )

        name = x if x == y else contrast.SEPARATOR.join((x or a.label, y or b.label))
        found += contrast.study(name, mine, theirs, estimator, obstacles)
    found = [
        absent(pair, a.label, b.label) for pair in verification.judge(found, params.claims.level)
    ]
    changed = {key: (x, y) for key, x, y in asked.changes(a.tree.parameters, b.tree.parameters)}
    stale = {
        each.label: asked.stale(each.tree.side(pair[i], ("provenance",)), each.tree.parameters)
        for i, each in enumerate((a, b))
        for pair in pairs
    }
    stale = {label: models for label, models in stale.items() if models}
    said = answer(found, a.label, b.label)
    if as_json:
        whole = {
            "a": a.tree.name,
            "b": b.tree.name,
            "estimator": estimator,
            "level": params.claims.level,
            "answer": said,
            "stale": stale,
        }
        whole |= {"parameters": [{"key": key, "a": x, "b": y} for key, (x, y) in changed.items()]}
        terminal.dump(whole | {"comparisons": [told(pair) for pair in found]})
        return
    if changed:
        terminal.show(
            Table(
                "",
                [Column("params.yaml", least=20), *heads(a.label, b.label)],
                [[key, *values] for key, values in changed.items()],
            )
        )
    columns = [
        Column("by", rank=2, least=12),
        *heads(a.label, b.label),
        Column("difference", right=True, rank=1),
        Column("apart", right=True),
    ]
    columns.append(Column("verdict", least=14))
    for study, members in groupby(found, key=lambda pair: pair.study):
        title = (
            f"{a.label} beside {b.label}"
            if study in (a.label, b.label) or contrast.SEPARATOR in study
            else f"{study}: {a.label} beside {b.label}"
        )
        sides.show(
            title,
            study,
            list(members),
            columns,
            cells,
            lambda pair: pair.here is None and pair.reference is None,
        )
    for label, models in stale.items():
        terminal.say(
            f"{label}: params.yaml was changed since its results were made, for {', '.join(models)}",
            "yellow",
        )
    terminal.say(said, "bold")


def side(text: str, params: Params, results: Path) -> Side:
    """What a name stands for: a study of results/, a folder, a revision, or one study of these.

    Raises:
        UserError: nothing that is there.
    """
    if text in params.studies:
        tree = sides.in_folder(results, "run the stage that writes it again, or take it from git")
        if text not in tree.studies():
            raise UserError(
                f"compare: {results / text} holds no estimates.json; dvc repro collect@{text}, or take it from git"
            )
        return Side(text, tree, text)
    place, _, study = (text, "", "") if Path(text).is_dir() else text.partition(":")
    if not place or (not study and ":" in text):
        raise UserError(
            f"compare: {text!r} names nothing; give a study, a folder of results, a revision, or one of the latter two:STUDY"
        )
    try:
        tree = (
            sides.in_folder(Path(place))
            if Path(place).is_dir()
            else sides.at_revision(place, results)
        )
    except UserError as error:
        raise UserError(
            f"compare: {error}; give one of {', '.join(params.studies)}, a folder of results, or a revision"
        ) from None
    there = tree.studies()
    if not there:
        raise UserError(
            f"compare: {place} holds no estimates.json; give a folder of results, or of a study"
        )
    if study and study not in there:
        raise UserError(
            f"compare: {place} has no results of a study {study!r}; give one of {', '.join(there)}"
        )
    return Side(text, tree, study or ("" if there == [""] else None))


def matched(a: Side, b: Side, studies: Sequence[str]) -> list[tuple[str, str]]:
    """The studies that stand side by side.

    Raises:
        UserError: one is on one side alone.
    """
    both = (a, b)
    if studies and None not in (a.study, b.study):
        raise UserError(
            f"compare: {a.label} and {b.label} name their studies; leave out {' '.join(studies)}"
        )
    if studies and len(studies) > 1 and (a.study, b.study) != (None, None):
        raise UserError("compare: one side names its study; give one STUDY for the other")
    for each in both:
        for study in studies if each.study is None else ():
            if study not in each.tree.studies():
                raise UserError(
                    f"compare: {each.label} has no results of a study {study!r}; give one of {', '.join(each.tree.studies())}"
                )
    if a.study is None and b.study is None:
        found = studies or [study for study in a.tree.studies() if study in b.tree.studies()]
        if not found:
            raise UserError(
                f"compare: {a.label} and {b.label} have no study in common; name one of each as PLACE:STUDY"
            )
        return [(study, study) for study in found]
    named = studies[0] if studies else a.study or b.study or ""
    x, y = (named if each.study is None else each.study for each in both)
    for each, study in zip(both, (x, y), strict=True):
        if each.study is None and study not in each.tree.studies():
            raise UserError(
                f"compare: {each.label} has no results of a study {study!r}; name one as {each.label}:STUDY"
            )
    return [(x, y)]


def known_to(
    mine: verification.Side, theirs: verification.Side, estimator: str, labels: tuple[str, str]
) -> None:
    """Raises:
    UserError: neither side has such an estimator.
    """
    there = dict.fromkeys(
        str(getattr(row, "estimator", ""))
        for found in (mine, theirs)
        for row in found.get("estimates", ())
    )
    if there and estimator not in there:
        raise UserError(
            f"compare: no estimator {estimator!r} in {' or '.join(labels)}; give one of {', '.join(there)}"
        )


def absent(pair: Comparison, a: str, b: str) -> Comparison:
    """With the side on which it was not run, if there is one."""
    lacking = [name for name, found in ((a, pair.here), (b, pair.reference)) if found is None]
    return (
        replace(pair, notes=("on either side" if len(lacking) == 2 else f"in {lacking[0]}",))
        if lacking
        else pair
    )


def verdict(pair: Comparison) -> str:
    if pair.notes[:1] == (contrast.RANKED,) or (
        pair.status == "other parameters" and not pair.notes
    ):
        return "not compared"
    words = VERDICTS if pair.group in ("claims", verification.SETTING) else WORDS
    return "identical" if pair.identical and words is WORDS else words[pair.status]


def difference(pair: Comparison) -> float | None:
    """b − a, of two that are compared."""
    if pair.apart is None or pair.here is None or pair.reference is None:
        return None
    x, y = pair.here.value, pair.reference.value
    return None if isinstance(x, str) or isinstance(y, str) or x is None or y is None else y - x


def told(pair: Comparison) -> dict[str, Any]:
    """For programs."""
    fields = asdict(pair)
    a, b = fields.pop("here"), fields.pop("reference")
    del fields["status"], fields["identical"]
    return fields | {"a": a, "b": b, "difference": difference(pair), "verdict": verdict(pair)}


def answer(found: Sequence[Comparison], a: str, b: str) -> str:
    """In one sentence."""
    llc = [pair for pair in found if pair.group == "λ̂"]
    tested = [pair for pair in llc if verdict(pair) in ("identical", "within errors", "differ")]
    apart = [pair for pair in tested if verdict(pair) == "differ"]
    barred = [pair for pair in llc if verdict(pair) == "not comparable"]
    claims = Counter(verdict(pair) for pair in found if pair.group == "claims")
    words = []
    if tested:
        more = (
            f", most of all that of {max(apart, key=lambda pair: pair.apart or 0.0).name}"
            if apart
            else ""
        )
        words.append(f"λ̂ of {len(apart)} of {len(tested)} models differ between {a} and {b}{more}.")
    if barred:
        reasons = "; ".join(dict.fromkeys(reason for pair in barred for reason in pair.notes[:1]))
        words.append(
            f"λ̂ of {len(barred)} cannot be compared ({reasons}): they are shown, and no difference."
        )
    if any(verdict(pair) == "not compared" for pair in llc):
        words.append(
            "Models that are not the same stand side by side by rank, and no difference is computed."
        )
    if not tested and not barred and all(pair.status == "not run" for pair in llc):
        words.append(f"No λ̂ was run in both {a} and {b}.")
    if claims:
        words.append(f"Verdicts: {', '.join(f'{count} {word}' for word, count in claims.items())}.")
    return " ".join(words)


# For people


def heads(a: str, b: str) -> list[Column]:
    """Of the two sides."""
    return [
        Column(label if len(label) < LONGEST else f"…{label[1 - LONGEST :]}", right=True)
        for label in (a, b)
    ]


def cells(pair: Comparison, part: str) -> list[Cell | str]:
    change = difference(pair)
    notes = (
        f": {'; '.join(pair.notes)}"
        if pair.notes and pair.status != "not run"
        else f" {pair.notes[0]}"
        if pair.notes
        else ""
    )
    digits = sides.digits(pair.here)
    moved = "" if change is None else f"{change:+,.{digits}f}"
    word = verdict(pair)
    return [
        pair.name,
        part,
        sides.value(pair.here),
        sides.value(pair.reference),
        moved,
        sides.apart(pair),
        Cell(word + notes, STYLES.get(word, "")),
    ]
