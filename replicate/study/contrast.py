"""Two studies, or two variants of one, side by side. Pure.

A difference is computed between estimates of one model alone, and of one quantity: λ̂ at another
nβ, on another text, or of other parameters is another quantity, which a `Barrier` says; both are
shown, and no difference. Families that have no model in common stand side by side by rank, the
first of one beside the first of the other. How differences are judged:
replicate/study/reproduction.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from replicate.study.findings import Found
from replicate.study.records import Claim, Estimate
from replicate.study.reproduction import SETTING, STUDY, Comparison, Side, compared

Match = tuple[
    str | None, str | None
]  # two models that stand side by side; None where one side has none there
FILES = ("estimates", "baselines", "search", "claims", "provenance")  # all that is read here
RANKED = "another model"
SEPARATOR = " | "


@dataclass(frozen=True)
class Obstacles:
    """Of a model that both sides have. `llc`, `loss`: why these are no two estimates of one
    quantity; empty where they are. `notes`: what else is not the same.
    """

    llc: tuple[str, ...] = ()
    loss: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def study(
    name: str, a: Side, b: Side, estimator: str, obstacles: Callable[[str], Obstacles]
) -> list[Comparison]:
    """λ̂, losses at w*, sampler settings and verdicts of two sides, not yet judged together."""
    found: list[Comparison] = []
    matches = matched(a, b)
    chosen = settings(name, a, b, matches)
    moved = {
        model
        for pair in chosen
        if pair.status == "changed"
        for model in families(a).get(pair.name, ())
    }
    for group, part in (("λ̂", estimator), ("loss at w*", "all examples")):
        file, read = STUDY[group]
        mine, theirs = read(a.get(file, ())), read(b.get(file, ()))
        for x, y in matches:
            label = (
                x if x is not None and x == y else SEPARATOR.join(each or "–" for each in (x, y))
            )
            pair = Comparison(
                name, group, label, part, mine.get((x or "", part)), theirs.get((y or "", part))
            )
            if x is None or x != y:
                found.append(shown(pair, (RANKED,)))
                continue
            met = obstacles(x)
            why = met.llc if group == "λ̂" else met.loss
            pair = shown(pair, why) if why else compared(pair)
            notes = [*met.notes, *["at another setting"] * (x in moved)]
            touched = group == "λ̂" and not pair.identical and pair.status != "not run"
            found.append(replace(pair, notes=(*pair.notes, *notes)) if touched else pair)
    return [*found, *chosen, *verdicts(name, a, b)]


def shown(pair: Comparison, why: Sequence[str]) -> Comparison:
    """Without a difference, because of `why`."""
    absent = pair.here is None or pair.reference is None
    return pair if absent else replace(pair, status="other parameters", notes=tuple(why))


def matched(a: Side, b: Side) -> list[Match]:
    """By name; models of families that have none in common by their rank in these, as params.yaml
    lists them.
    """
    mine, theirs = families(a), families(b)
    alike = {(f, g) for f in mine for g in theirs if f == g or set(mine[f]) & set(theirs[g])}
    found: list[Match] = []
    for f, g in sorted(alike, key=lambda pair: list(mine).index(pair[0])):
        names = list(dict.fromkeys([*mine[f], *theirs[g]]))
        found += [
            (name if name in mine[f] else None, name if name in theirs[g] else None)
            for name in names
        ]
    left = (
        [f for f in mine if f not in {pair[0] for pair in alike}],
        [g for g in theirs if g not in {pair[1] for pair in alike}],
    )
    for f, g in zip_longest(*left):
        found += zip_longest(mine.get(f or "", ()), theirs.get(g or "", ()))
    return found


def families(side: Side) -> dict[str, list[str]]:
    """Models by family, both in the order of params.yaml."""
    found: dict[str, list[str]] = {}
    for row in side.get("estimates", ()):
        if isinstance(row, Estimate) and row.model not in found.setdefault(row.family, []):
            found[row.family].append(row.model)
    return found


def settings(name: str, a: Side, b: Side, matches: Sequence[Match]) -> list[Comparison]:
    """The sampler setting that each family's search chose, beside that of the family which stands
    beside it.
    """
    file, read = STUDY[SETTING]
    chosen = [
        {family: found for (family, _), found in read(side.get(file, ())).items()}
        for side in (a, b)
    ]
    family = [
        {model: key for key, models in families(side).items() for model in models}
        for side in (a, b)
    ]
    beside = dict.fromkeys(
        (family[0].get(x or ""), family[1].get(y or "")) for x, y in matches if x and y
    )
    found = []
    for f, g in beside:
        pair = Comparison(
            name,
            SETTING,
            str(f) if f == g else f"{f}{SEPARATOR}{g}",
            "",
            chosen[0].get(str(f)),
            chosen[1].get(str(g)),
        )
        found.append(compared(pair) if f == g else shown(pair, ()))
    return found


def verdicts(name: str, a: Side, b: Side) -> list[Comparison]:
    """By the claim's id: its rule is the same for every study."""
    rows = [
        {row.id: row for row in side.get("claims", ()) if isinstance(row, Claim)} for side in (a, b)
    ]
    found = []
    for key in dict.fromkeys([*rows[0], *rows[1]]):
        x, y = (
            None
            if (row := side.get(key)) is None or row.verdict == "not run"
            else Found(row.verdict)
            for side in rows
        )
        claim = next(side[key].claim for side in rows if key in side)
        found.append(compared(Comparison(name, "claims", key, claim, x, y)))
    return found
