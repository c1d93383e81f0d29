"""Groups λ̂ of trainings by setting, leaves out what is not judged, and says what was measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from replicate.estimation.layouts import Layout
from replicate.estimation.statistics import Effect
from replicate.study.claims.evidence import Array
from replicate.study.claims.verdicts import number
from replicate.study.records import Setting
from replicate.study.records.settings import ends
from replicate.study.rules import Point, Rules

Key = tuple[str, float, float | None, float | None]  # loss, nβ, γ or None, γ/d or None
Grouped = dict[Key, list[Setting]]

UNJUDGED = ("escaped", "not in equilibrium")  # regimes in which λ̂ is that of no local posterior
RADIUS = 0.01  # relative difference of γ/d within which settings have one radius
LABELS = {"tokens": "all tokens", "last": "the last token"}
MEASURED = {  # what λ̂ is in a regime
    "gradient": "in part the gradient at w*",
    "curvature": "the curvature ½·nβ·tr(H)/γ",
    "localised, anharmonic": "the mean rise of the loss in a Gaussian ball",
    "plateau": "a learning coefficient, on a plateau",
    "crossover": "an effective dimension",
    "undecided": "of no decided regime",
}


@dataclass(frozen=True)
class Table:
    """λ̂ of all sizes of a family at one setting.

    Attributes:
        loss: the labels of a window.
        nbeta: nβ.
        localization: γ, the same for all sizes; None if γ is proportional to d.
        per_parameter: γ/d, the same for all sizes; None if γ is the same.
        sizes: the sizes of the family, the smallest first.
        rows: λ̂ that is judged; by size and training.
        left_out: why λ̂ is not judged → of how many trainings.
    """

    loss: str
    nbeta: float
    localization: float | None
    per_parameter: float | None
    sizes: tuple[str, ...]
    rows: tuple[Setting, ...]
    left_out: Mapping[str, int]

    @property
    def name(self) -> str:
        """nβ and γ, and the loss if it is not that of all tokens."""
        ratio = f"γ = {number(self.per_parameter)}·d"
        return named(self.loss, self.nbeta, self.localization or ratio)

    @property
    def measured(self) -> str:
        """What λ̂ is here, by the regimes of the chains."""
        counts = Counter(row.regime for row in self.rows)
        alphas = [row.localization / row.nbeta for row in self.rows]
        low, high = number(min(alphas, default=0.0)), number(max(alphas, default=0.0))
        alpha = f"α = {low}" if low == high else f"α = {low} to {high}"
        share = {name: f" ({count} of {len(self.rows)})" for name, count in counts.items()}
        kinds = [MEASURED[name] + share[name] * (len(counts) > 1) for name in counts]
        return f"λ̂ is {' or '.join(kinds)} at {alpha}" if kinds else "no λ̂ can be judged"

    @property
    def omitted(self) -> str:
        """A sentence on the λ̂ that are left out; empty if none is."""
        if not self.left_out:
            return ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        every = len(self.rows) + sum(self.left_out.values())
        return f" Not judged at {self.name}: {sum(self.left_out.values())} of {every} ({reasons})."

    @property
    def whole(self) -> bool:
        """Whether at least one λ̂ of every size is judged."""
        return {row.size for row in self.rows} == set(self.sizes)

    @property
    def different(self) -> int:
        """The number of sizes that differ in their number of parameters."""
        return len({row.parameters for row in self.rows})

    @property
    def log_sizes_N(self) -> Array:  # noqa: N802
        """ln d of each row."""
        return np.log([float(row.parameters) for row in self.rows])

    def at(self, point: Point) -> bool:
        """Returns whether this is the setting `point`."""
        own = (self.loss, self.nbeta, self.localization)
        return own == (point.loss, point.nbeta, point.localization)

    def layout(self, measure: Callable[[Setting], tuple[float, float]] | None = None) -> Layout:
        """Returns a value of every row with its Monte-Carlo error, in groups by size.

        Args:
            measure: takes a row and returns value and error; ln λ̂ if it is not given.
        """
        return layout(self.sizes, self.rows, measure or log_llc)


def named(loss: str, nbeta: float, localization: float | str) -> str:
    """Writes a setting: nβ and γ, and the loss if it is not that of all tokens."""
    gamma = localization if isinstance(localization, str) else f"{localization:g}"
    return f"({nbeta:g}, {gamma})" + ("" if loss == "tokens" else f", {LABELS[loss]}")


def layout(
    sizes: Sequence[str],
    rows: Sequence[Setting],
    measure: Callable[[Setting], tuple[float, float]],
) -> Layout:
    """Returns a value of each row with its Monte-Carlo error, in groups by size."""
    values_N, errors_N = np.array([measure(row) for row in rows], float).reshape(-1, 2).T
    present = [size for size in sizes if any(row.size == size for row in rows)]
    return Layout(values_N, np.array([present.index(row.size) for row in rows], int), errors_N)


def log_llc(row: Setting) -> tuple[float, float]:
    """Returns ln λ̂ and its Monte-Carlo standard error."""
    llc, error = row.llc or 0.0, row.standard_error or 0.0
    return float(np.log(llc)), error / llc


def of_trainings(rows: Sequence[Setting], family: str) -> list[Setting]:
    """Returns λ̂ of whole trainings of a family: on its corpus, at the end, with their weights."""
    return [
        row
        for row in ends(row for row in rows if row.family == family)
        if row.text == "corpus" and row.rescaled is row.minimised is None
    ]


def tables(rows: Sequence[Setting], family: str, rules: Rules) -> tuple[list[Table], bool]:
    """Groups λ̂ of a family by setting.

    Args:
        rows: the settings of the study.
        family: the name of the family.
        rules: the limit of the Monte-Carlo error.

    Returns:
        The settings that have every size, those with one γ first, and whether every size has
        several trainings there. If there are such settings, only they are returned; the others,
        such as those of a map of one training, are not judged.
    """
    own = sorted(of_trainings(rows, family), key=lambda row: (row.parameters, row.training))
    sizes = tuple(dict.fromkeys(row.size for row in own))
    found: Grouped = {}
    for row in own:
        found.setdefault((row.loss, row.nbeta, row.localization, None), []).append(row)
    for loss, nbeta in dict.fromkeys((row.loss, row.nbeta) for row in own):
        found |= _radii([row for row in own if (row.loss, row.nbeta) == (loss, nbeta)])
    complete = {key: each for key, each in found.items() if _least(each, sizes) > 0}
    several = {key: each for key, each in complete.items() if _least(each, sizes) > 1}
    judged = (several or complete).items()
    return [_table(key, each, sizes, rules, bool(several)) for key, each in judged], bool(several)


def _least(rows: Sequence[Setting], sizes: Sequence[str]) -> int:
    """Returns the number of trainings of the size that has the fewest."""
    counts = Counter(row.size for row in rows)
    return min((counts[size] for size in sizes), default=0)


def _radii(rows: Sequence[Setting]) -> Grouped:
    """Groups λ̂ of several sizes at one loss and nβ by γ/d."""
    found: Grouped = {}
    ordered = sorted(rows, key=lambda row: row.localization / row.parameters)
    while ordered:
        ratio = ordered[0].localization / ordered[0].parameters
        near = [r for r in ordered if r.localization / r.parameters <= ratio * (1 + RADIUS)]
        ordered = ordered[len(near) :]
        near.sort(key=lambda row: (row.parameters, row.training))
        if len({row.parameters for row in near}) > 1:
            found[near[0].loss, near[0].nbeta, None, ratio] = near
    return found


def _table(
    key: Key,
    rows: Sequence[Setting],
    sizes: tuple[str, ...],
    rules: Rules,
    several: bool,
) -> Table:
    limit = rules.trainings.monte_carlo if several else np.inf
    reasons = [unjudged(row, limit) for row in rows]
    kept = tuple(row for row, reason in zip(rows, reasons, strict=True) if not reason)
    return Table(*key, sizes=sizes, rows=kept, left_out=Counter(filter(None, reasons)))


def unjudged(row: Setting, limit: float = np.inf) -> str:
    """Says why a λ̂ is not judged; empty if it is.

    Args:
        row: λ̂ at one setting.
        limit: the greatest Monte-Carlo error of ln λ̂.
    """
    if row.llc is None or row.standard_error is None:
        return "diverged"
    if row.regime in UNJUDGED:
        return row.regime
    if row.llc <= 0:
        return "with λ̂ ≤ 0"
    if row.standard_error > limit * row.llc:
        return f"with a Monte-Carlo error above {limit:.0%}"
    return ""


def paired_slope(
    first: Table, second: Table, measure: Callable[[Setting], tuple[float, float]], rules: Rules
) -> Effect | None:
    """Returns the slope on ln d of what a measure differs by between two settings of the same
    trainings; None if fewer than two sizes have both.
    """
    other = {row.model: row for row in second.rows}
    rows = [row for row in first.rows if row.model in other]
    if len({row.parameters for row in rows}) < 2:
        return None

    def difference(row: Setting) -> tuple[float, float]:
        (a, error), (b, of_b) = measure(row), measure(other[row.model])
        return a - b, math.hypot(error, of_b)

    log_sizes_N = np.log([float(row.parameters) for row in rows])
    return layout(first.sizes, rows, difference).slope(log_sizes_N, rules.level)
