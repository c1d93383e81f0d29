"""Whether results reproduce a reference, estimate by estimate, within each one's own error. Pure.

*reproduced*        the two numbers are the same (then it is *identical*), or no further apart than
                    their errors let two runs be;
*differs*           they are further apart; or a verdict is the opposite one;
*changed*           not the same, and nothing says how far apart chance may bring them: a number
                    without an error, another setting, a
                    verdict that one side leaves open;
*other parameters*  params.yaml asked for something else: no reproduction, whatever the numbers are;
*not run*           on one side, or on either.

Two estimates with standard errors sₐ, s_b of νₐ, ν_b degrees of freedom are |a − b|/√(sₐ² + s_b²)
standard errors apart, which is judged by Student's t with Welch's degrees of freedom (Welch 1947):
a λ̂ rests on few shuffles, and 3 standard errors mean little. Holm's rule (1979) over all
comparisons that are not identical keeps the probability that a rerun with other random numbers is
said to differ anywhere below `level`, as long as neither side scatters more than twice as much as
the other.

The error of a λ̂ is that of chains around one w*. A control model that was trained on another kind
of machine ends at another w*, and its λ̂ may then differ by more: the note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Literal

from scipy.special import stdtr

from replicate.study import findings
from replicate.study.findings import Found, Read
from replicate.study.records import Estimate, Provenance, Record

Status = Literal["reproduced", "differs", "changed", "other parameters", "not run"]
Side = Mapping[
    str, Sequence[Record]
]  # records by the name of their file; what is not there was not run
Reader = Callable[[Sequence[Record]], Read]
SETTING = "sampler setting"
STUDY: dict[
    str, tuple[str, Reader]
] = {  # what is compared, the file it stands in, and how it is read from that
    "λ̂": ("estimates", findings.estimates),
    "loss at w*": ("baselines", findings.baselines),
    "loss after training": ("training", findings.trainings),
    SETTING: ("search", findings.settings),
    "claims": ("claims", findings.claims),
}
CALIBRATION: dict[str, tuple[str, Reader]] = {
    "calibration": ("calibration", findings.calibrated),
    "coverage": ("coverage", findings.coverage),
    "controls": ("controls", findings.controls),
}
OPPOSITE = ({"supported", "not supported"}, {"caught", "not caught"})
ELSEWHERE = ("original", "transfer")  # parameters that no comparison here depends on


@dataclass(frozen=True)
class Comparison:
    """`apart`: standard errors of the difference between the two."""

    study: str
    group: str
    name: str
    part: str
    here: Found | None
    reference: Found | None
    status: Status = "not run"
    identical: bool = False
    apart: float | None = None
    freedom: float | None = None
    p_value: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """What the two sides' results are from, where it is not the same."""

    study: str
    what: str
    models: tuple[str, ...]
    here: str | None = None
    reference: str | None = None


def study(name: str, here: Side, reference: Side) -> list[Comparison]:
    """Of a study's results, not yet judged together."""
    found = pairs(name, here, reference, STUDY)
    moved = {pair.name for pair in found if pair.group == SETTING and pair.status == "changed"}
    families = {
        row.model: row.family
        for side in (here, reference)
        for row in side.get("estimates", ())
        if isinstance(row, Estimate)
    }
    other = other_parameters(here, reference)
    anew = {
        model
        for difference in provenance(name, here, reference)
        if difference.what == "weights"
        for model in difference.models
    }
    for i, pair in enumerate(found):
        if pair.status == "not run":
            continue
        models = [
            model
            for model in other
            if pair.group == "claims" or pair.name in (model, families.get(model))
        ]
        if models:
            note = "; ".join(f"{model}: {', '.join(other[model])}" for model in models)
            found[i] = replace(pair, status="other parameters", p_value=None, notes=(note,))
        elif not pair.identical and pair.group != "claims":
            elsewhere = pair.group == "λ̂" and families.get(pair.name) in moved
            notes = ["at another w*"] * (pair.name in anew) + ["at another setting"] * elsewhere
            found[i] = replace(pair, notes=(*pair.notes, *notes))
    return found


def calibration(here: Side, reference: Side) -> list[Comparison]:
    """Of models whose λ is known, not yet judged together."""
    return pairs("calibration", here, reference, CALIBRATION)


def published(here: Side, reference: Side) -> list[Comparison]:
    """Of the verdicts on the published figures."""
    return pairs("published", here, reference, {"claims": STUDY["claims"]})


def pairs(
    study: str, here: Side, reference: Side, groups: Mapping[str, tuple[str, Reader]]
) -> list[Comparison]:
    """What stands on either side, in the order of the reference."""
    found = []
    for group, (file, read) in groups.items():
        mine, theirs = read(here.get(file, ())), read(reference.get(file, ()))
        for name, part in dict.fromkeys([*theirs, *mine]):
            found.append(
                compared(
                    Comparison(
                        study, group, name, part, mine.get((name, part)), theirs.get((name, part))
                    )
                )
            )
    return found


def compared(pair: Comparison) -> Comparison:
    """With all that the two sides alone decide; whether two numbers differ is judged later, with
    all others.
    """
    here, reference = pair.here, pair.reference
    if here is None or reference is None:
        lacking = (
            "on either side"
            if here is reference
            else "here"
            if here is None
            else "in the reference"
        )
        return replace(pair, notes=(lacking,))
    if (here.value, here.error) == (reference.value, reference.error):
        return replace(pair, status="reproduced", identical=True)
    if isinstance(here.value, str) or isinstance(reference.value, str):
        return replace(
            pair, status="differs" if {here.value, reference.value} in OPPOSITE else "changed"
        )
    if here.value is None or reference.value is None:
        return replace(
            pair,
            status="changed",
            notes=(f"no finite value {'here' if here.value is None else 'in the reference'}",),
        )
    if None in (here.error, here.freedom, reference.error, reference.freedom):
        change = (here.value / reference.value - 1) if reference.value else inf
        return replace(pair, status="changed", notes=(f"{change:+.2%}, without an error",))
    apart, degrees, p = welch(here, reference)
    return replace(pair, status="reproduced", apart=apart, freedom=degrees, p_value=p)


def welch(a: Found, b: Found) -> tuple[float, float, float]:
    """How many standard errors two estimates are apart, its degrees of freedom, and the two-sided p
    of that, were they of the same.
    """
    assert isinstance(a.value, float | int)
    assert isinstance(b.value, float | int)
    parts = [((side.error or 0.0) ** 2, side.freedom or 1.0) for side in (a, b)]
    total = sum(square for square, _ in parts)
    if total == 0:
        return inf, inf, 0.0
    apart = abs(a.value - b.value) / sqrt(total)
    spread = sum(square**2 / degrees for square, degrees in parts)
    degrees = total**2 / spread if spread else inf
    return apart, degrees, 2 * float(stdtr(min(degrees, 1e9), -apart))


def judge(comparisons: Sequence[Comparison], level: float) -> list[Comparison]:
    """The same, with those that are too far apart by Holm's rule said to differ."""
    tested = sorted(
        (pair.p_value, i) for i, pair in enumerate(comparisons) if pair.p_value is not None
    )
    found = list(comparisons)
    for rank, (p, i) in enumerate(tested):
        if p >= level / (len(tested) - rank):
            break
        found[i] = replace(found[i], status="differs")
    return found


def by_model(side: Side) -> dict[str, Provenance]:
    return {row.model: row for row in side.get("provenance", ()) if isinstance(row, Provenance)}


def other_parameters(here: Side, reference: Side) -> dict[str, list[str]]:
    """The parts of params.yaml that were not the same, by model."""
    found = {}
    mine, theirs = by_model(here), by_model(reference)
    for model in mine.keys() & theirs.keys():
        a, b = mine[model].parameters, theirs[model].parameters
        parts = sorted(
            part
            for part in a.keys() | b.keys()
            if a.get(part) != b.get(part) and part not in ELSEWHERE
        )
        if parts:
            found[model] = parts
    return found


def provenance(name: str, here: Side, reference: Side) -> list[Difference]:
    """What is not the same of models that were run on both sides; of hashes only that they
    differ.
    """
    mine, theirs = by_model(here), by_model(reference)
    models: dict[tuple[str, str | None, str | None], list[str]] = {}
    for model in theirs:
        if model not in mine or "not run" in (mine[model].status, theirs[model].status):
            continue
        a, b = mine[model], theirs[model]
        for field in ("seed", "device", "threads", "revision"):
            if getattr(a, field) != getattr(b, field):
                models.setdefault(
                    (field, told(getattr(a, field)), told(getattr(b, field))), []
                ).append(model)
        versions, others = a.versions or {}, b.versions or {}
        for package in sorted(versions.keys() & others.keys()):
            if versions[package] != others[package]:
                models.setdefault((package, versions[package], others[package]), []).append(model)
        for field in ("windows", "weights", "traces"):
            if getattr(a, field) != getattr(b, field) and None not in (
                getattr(a, field),
                getattr(b, field),
            ):
                models.setdefault((field, None, None), []).append(model)
    return [Difference(name, what, tuple(names), a, b) for (what, a, b), names in models.items()]


def told(value: object) -> str:
    return "not noted" if value is None else str(value)


def answer(comparisons: Sequence[Comparison], reference: str) -> str:
    """In one sentence."""
    count = {
        status: [pair for pair in comparisons if pair.status == status]
        for status in ("reproduced", "differs", "changed", "not run")
    }
    other = sorted(
        {
            pair.name
            for pair in comparisons
            if pair.status == "other parameters" and pair.group not in ("claims", SETTING)
        }
    )
    identical = sum(pair.identical for pair in count["reproduced"])
    asides = [
        f"{len(count[status])} {words}"
        for status, words in (("changed", "changed"), ("not run", "not run"))
        if count[status]
    ]
    aside = f" ({', '.join(asides)})" if asides else ""
    if other:
        return f"Not a reproduction of {reference}: other parameters were asked for, for {', '.join(other)}{aside}."
    if count["differs"]:
        first = max(count["differs"], key=lambda pair: pair.apart or 0.0)
        apart = "" if first.apart is None else f" by {first.apart:.1f} standard errors"
        most = "which is" if len(count["differs"]) == 1 else "the most of them"
        head = f"Not reproduced: {len(count['differs'])} of {len(count['differs']) + len(count['reproduced'])} differ from {reference}"
        return f"{head}, {most} {first.group} of {first.name}, {first.part}{apart}{aside}."
    if not count["reproduced"]:
        return f"Nothing to compare with {reference}{aside}."
    how = (
        "all of them identical"
        if identical == len(count["reproduced"])
        else f"{identical} identical, the others within their errors"
    )
    if identical == len(count["reproduced"]):
        aside += f"; so they are, too, where nothing has been rerun since {reference}"
    return f"Reproduced: {len(count['reproduced'])} estimates and verdicts of {reference}, {how}{aside}."
