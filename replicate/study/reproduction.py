"""Compares two sets of results: each λ̂, loss at w*, sampler setting, verdict and calibration row.

A comparison has one of five outcomes:

- *reproduced*: both sets have the same value (then it is *identical*), or their numbers differ by
  no more than two runs may differ, given their errors.
- *differs*: the numbers differ by more than that, or the verdicts are opposite.
- *changed*: the values are not the same, and no error says how much chance may change them. This
  holds for a number without an error, a sampler setting, and a verdict that one set leaves open.
- *not comparable*: the two are estimates of different quantities; the notes say why.
- *not run*: at least one of the two sets does not have it. If it is the first, that set *lacks* it.

Two estimates with standard errors sₐ, s_b of νₐ, ν_b degrees of freedom are |a − b|/√(sₐ² + s_b²)
standard errors apart. Student's t with Welch's (1947) degrees of freedom judges this distance,
because λ̂ is a mean over few shuffles. Holm's rule (1979) over all comparisons with a p value
limits the probability of any false alarm in a rerun to the level, as long as neither set scatters
more than twice as much as the other.

The error of λ̂ covers chains around one w*. A control model that was trained on another kind of
machine ends at another w*, so its λ̂ may differ by more. A note says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any, Literal

from scipy.special import stdtr, stdtridf

from replicate.study import records

Status = Literal["reproduced", "differs", "changed", "not comparable", "not run"]
Records = Mapping[str, Sequence[Any]]
"""Records by the name of their file, without `.json`."""

LLC, LOSS = "λ̂", "loss at w*"
KINDS = {  # kind of comparison → the file of records that it reads
    "sampler setting": "search",
    LLC: "estimates",
    "λ̂ at a setting": "settings",
    LOSS: "baselines",
    "verdict": "claims",
    "calibration": "calibration",
    "coverage": "coverage",
    "negative control": "controls",
}
SAMPLER = ("lr", "localization", "weight_decay", "bounding_box", "diffusion", "noise_diffusion")
UNRELATED = {"curve", "original", "transfer"}  # parts of params.yaml that no comparison uses
BOTH = (LLC, LOSS)  # the kinds of comparison that are of one model
DIFFERENT_QUANTITIES = (  # kinds, file, field, and the note if its two values differ
    (BOTH, "baselines", "windows", "another text"),
    (BOTH, "baselines", "parameters", "models of {:,} and {:,} parameters"),
    ((LLC,), "estimates", "nbeta", "nβ {:g} and {:g}"),
    ((LLC,), "estimates", "sampled_parameters", "other parameters are sampled"),
    ((LLC,), "baselines", "sampled", "other parameters are sampled"),
)
NOTES = (  # as above, for differences that leave the numbers comparable
    (BOTH, "provenance", "weights", "at another w*"),
    (BOTH, "provenance", "revision", "at another w*"),
    (BOTH, "estimates", "weights", "weights in {} and {}"),
    (BOTH, "provenance", "device", "on {} and {}"),
    ((LLC,), "estimates", "localization", "γ {:g} and {:g}"),
    ((LLC,), "provenance", "seed", "seeds {} and {}"),
    ((LLC,), "provenance", "code", "other code"),
)


@dataclass(frozen=True)
class Outcome:
    """A value in one of the two sets of results.

    Attributes:
        value: a number, or words; None if the number is not finite.
        error: the standard error of the number.
        freedom: the degrees of freedom of that error.
    """

    value: float | str | None
    error: float | None = None
    freedom: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A value in the first set of results, `a`, and in the second, `b`; None if a set lacks it.

    Attributes:
        kind: one of `KINDS`.
        name: the name of the model, family, claim or target.
        part: the estimator, or what else distinguishes two comparisons of the same name.
        apart: the difference in units of its standard error.
        p_value: two-sided, under the hypothesis that both estimate the same quantity.
    """

    study: str
    kind: str
    name: str
    part: str
    a: Outcome | None
    b: Outcome | None
    status: Status = "not run"
    identical: bool = False
    apart: float | None = None
    p_value: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether the first set lacks what the second one has."""
        return self.a is None and self.b is not None


def lacking(a: Records, b: Records) -> list[str]:
    """Returns the files that have rows in `b` and none in `a`, and that no comparison reads."""
    others = [name for name in b if name not in (*KINDS.values(), "refused")]
    return [f"{name}.json" for name in others if b[name] and not a.get(name)]


def compare(study: str, a: Records, b: Records, planned: Collection[str] = ()) -> list[Comparison]:
    """Compares two sets of a study's results. `judge` then decides which numbers differ.

    Args:
        study: the study's name.
        a: the first set of records.
        b: the second set.
        planned: the models in the study's plan. They are listed even if no set has them.
    """
    found: list[Comparison] = []
    for kind, file in KINDS.items():
        mine, theirs = _outcomes(a.get(file, ())), _outcomes(b.get(file, ()))
        keys = list(dict.fromkeys([*theirs, *mine]))
        if kind == LLC:
            keys += [(model, "controlled") for model in planned if model not in dict(keys)]
        for key in keys:
            pair = Comparison(study, kind, *key, mine.get(key), theirs.get(key))
            found.append(_of_model(pair, a, b) if kind in BOTH else compared(pair))
    return found


def compared(pair: Comparison) -> Comparison:
    """Returns the comparison with the status that follows from its two values alone.

    `judge` decides later whether two numbers with errors differ, from all comparisons together.
    """
    a, b = pair.a, pair.b
    if a is None or b is None:
        return replace(pair, status="not run")
    if (a.value, a.error) == (b.value, b.error):
        return replace(pair, status="reproduced", identical=True)
    if isinstance(a.value, str) or isinstance(b.value, str):
        opposite = {a.value, b.value} in ({"supported", "not supported"}, {"caught", "not caught"})
        return replace(pair, status="differs" if opposite else "changed")
    if None in (a.value, a.error, a.freedom, b.value, b.error, b.freedom):
        return replace(pair, status="changed", notes=("without a standard error",))
    apart, p = _welch(a, b)
    return replace(pair, status="reproduced", apart=apart, p_value=p)


def _welch(a: Outcome, b: Outcome) -> tuple[float, float]:
    """Compares two numbers with errors by Welch's t test. Returns the difference in standard errors
    and its two-sided p value.
    """
    assert isinstance(a.value, float | int) and isinstance(b.value, float | int)
    squares = [((each.error or 0.0) ** 2, each.freedom or 1.0) for each in (a, b)]
    total = sum(square for square, _ in squares)
    if total == 0:
        return inf, 0.0
    apart = abs(a.value - b.value) / sqrt(total)
    spread = sum(square**2 / freedom for square, freedom in squares)
    freedom = min(total**2 / spread, 1e9) if spread else 1e9
    return apart, 2 * float(stdtr(freedom, -apart))


def judge(comparisons: Sequence[Comparison], level: float) -> list[Comparison]:
    """Gives comparisons that are too far apart by Holm's rule the status *differs*.

    Args:
        comparisons: all comparisons that are tested together.
        level: the greatest probability of any false alarm among them.
    """
    found = list(comparisons)
    tested = sorted((pair.p_value, i) for i, pair in enumerate(found) if pair.p_value is not None)
    for rank, (p, i) in enumerate(tested):
        if p >= level / (len(tested) - rank):
            break
        found[i] = replace(found[i], status="differs")
    return found


def answer(comparisons: Sequence[Comparison], a: str, b: str) -> str:
    """Returns a short text on how the results named `a` compare with those named `b`."""
    count = Counter("identical" if pair.identical else pair.status for pair in comparisons)
    told = ", ".join(f"{n} {status}" for status, n in count.most_common())
    names = [f"{pair.kind} of {pair.name}" for pair in comparisons if pair.status == "differs"]
    which = f" What differs: {', '.join(dict.fromkeys(names))}." if names else ""
    return f"{a} against {b}: {told or 'nothing to compare'}.{which}"


def _outcomes(rows: Sequence[records.Record]) -> dict[tuple[str, str], Outcome | None]:
    """Returns what the records say, by name and part; None for a claim that was not run."""
    return dict(_outcome(row) for row in rows if not isinstance(row, records.Trial) or row.chosen)


def _outcome(row: records.Record) -> tuple[tuple[str, str], Outcome | None]:
    match row:
        case records.Trial():
            knobs = [f"{key} {value:.6g}" for key in SAMPLER if (value := getattr(row, key))]
            return (row.family, row.model), Outcome(", ".join([row.sampler, *knobs]))
        case records.Estimate():
            return (row.model, row.estimator), _with_interval(row)
        case records.Setting():
            loss = "all tokens" if row.loss == "tokens" else "last token"
            special = [row.text == "sampled" and "its own text", row.rescaled]
            special += [row.step is not None and f"step {row.step}"]
            special += [row.minimised is not None and f"minimised {row.minimised}"]
            words = [f"nβ {row.nbeta:g}", f"γ {row.localization:g}", loss, *filter(None, special)]
            return (row.model, ", ".join(map(str, words))), _with_interval(row)
        case records.Calibrated():
            return (row.target, f"λ {row.true_llc:.4g}"), _with_interval(row)
        case records.Baseline():
            return (row.model, ""), Outcome(row.loss, row.standard_error, inf)
        case records.JudgedClaim():
            return (row.id, ""), None if row.verdict == "not run" else Outcome(row.verdict)
        case records.NegativeControl():
            return (row.control, row.target), Outcome("caught" if row.caught else "not caught")
        case records.Coverage():
            # Agresti and Coull's (1998) error is above 0 even if all intervals contain λ
            share = (row.covered + 2) / (row.repeats + 4)
            error = sqrt(share * (1 - share) / (row.repeats + 4))
            name = row.target, f"95 % intervals, {row.setting}"
            return name, Outcome(row.share, error, inf)
    raise TypeError(type(row))


def _with_interval(row: records.Estimate | records.Setting | records.Calibrated) -> Outcome:
    """Returns λ̂ and its error, with the degrees of freedom that its 95 % t interval implies."""
    value, error, interval = row.llc, row.standard_error, row.interval
    if interval is None or error is None:
        return Outcome(value, error)
    t = (interval[1] - interval[0]) / (2 * error) if error else 0.0
    return Outcome(value, error, max(1.0, float(stdtridf(0.975, t))) if t > 1.96 else inf)


def _of_model(pair: Comparison, a: Records, b: Records) -> Comparison:
    """Compares two numbers of a model if they are comparable, and notes what else differs."""
    reasons = _changes(pair, a, b, DIFFERENT_QUANTITIES)
    if reasons and pair.a and pair.b:
        return replace(pair, status="not comparable", notes=reasons)
    pair = compared(pair)
    if pair.identical or pair.status == "not run":
        return pair
    notes = pair.notes + _changes(pair, a, b, NOTES)
    x, y = (_field(each, "provenance", pair.name, "parameters") or {} for each in (a, b))
    if parts := {part for part in x.keys() & y.keys() if x[part] != y[part]} - UNRELATED:
        notes += (f"other parameters: {', '.join(sorted(parts))}",)
    return replace(pair, notes=notes)


def _changes(pair: Comparison, a: Records, b: Records, fields: Sequence[Any]) -> tuple[str, ...]:
    """Returns the notes of those `fields` in which the two sets differ; both must have a value."""
    found = []
    for kinds, file, field, words in fields:
        x, y = _field(a, file, pair.name, field), _field(b, file, pair.name, field)
        if pair.kind in kinds and x is not None and y is not None and x != y:
            found.append(words.format(x, y))
    return tuple(dict.fromkeys(found))


def _field(found: Records, file: str, model: str, field: str) -> Any:
    rows = (row for row in found.get(file, ()) if row.model == model)
    return getattr(next(rows, None), field, None)
