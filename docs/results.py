"""`python -m docs.results` writes tables of docs/reference/results.md."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from replicate.pipeline import config as parameters
from replicate.reporting.results import Study
from replicate.reporting.table import Table
from replicate.reporting.tables import experiments, models, sizes
from replicate.study import published, records
from replicate.study.claims import trainings
from replicate.study.records import JudgedClaim
from replicate.study.rules import Rules

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("published", "control", "paper")
PAGE = "docs/reference/results.md"


def claims() -> Iterator[list[str]]:
    """Yields a row for each claim, with its verdict in each place."""
    found = [
        {row.id: row for row in records.read(ROOT / "results" / of / "claims.json", JudgedClaim)}
        for of in PLACES
    ]
    yield ["", "claim", *PLACES]
    for name, row in found[0].items():
        yield [name, row.claim, *(each[name].verdict for each in found)]


def exponents(study: Study, rules: Rules) -> Iterator[list[str]]:
    """Yields a row for each setting: the geometric mean over trainings of each size, and a."""
    found, _ = trainings.tables(study.settings, study.plan.full.name, rules)
    parts = next(claim.parts for claim in study.claims if claim.id == "R3")
    known = {part.name: part for part in parts}
    sizes = {row.size: row.parameters for row in found[0].rows}
    yield ["(nβ, γ)", *(f"{count:,}" for count in sizes.values()), "a of λ̂ ∝ dᵃ"]
    for table in found:
        part = known.get(f"{table.name}: exponent a of λ̂ ∝ dᵃ")
        if part is None or part.effect is None or part.interval is None:
            continue
        logs = {
            size: [math.log(r.llc or 0) for r in table.rows if r.size == size] for size in sizes
        }
        means = [f"{math.exp(sum(x) / len(x)):.3g} ({len(x)})" for x in logs.values()]
        low, high = part.interval
        a = f"{part.effect:.2f} ({low:.2f} to {high:.2f})".replace("-", "−")
        yield [table.name, *means, a]


def without(study: Study, rules: Rules) -> Iterator[list[str]]:
    """Yields a row for each setting: a of all sizes, and of all but one."""
    found, _ = trainings.tables(study.settings, study.plan.full.name, rules)
    whole = [table for table in found if table.whole and len(table.sizes) > 2]
    every = whole[0].sizes
    yield ["(nβ, γ)", "all", *(f"without {size}" for size in every)]
    for table in whole:
        row = [table.name]
        for left in (None, *every):
            kept = tuple(size for size in every if size != left)
            rows = tuple(row for row in table.rows if row.size in kept)
            some = replace(table, sizes=kept, rows=rows)
            a = some.layout().slope(some.log_sizes_N, rules.level)
            low, high = a.interval or (math.nan, math.nan)
            row.append(f"{a.value:.2f} ± {(high - low) / 2:.2f}".replace("-", "−"))
        yield row


def steps(study: Study) -> Iterator[list[str]]:
    """Yields a row for each step of training: λ̂ of each first training, and the slope of ln λ̂."""
    found = sizes.over_training(study)
    yield ["step", *(row.model for row in next(iter(found.values()))[0]), "a"]
    for step, (rows, slope) in found.items():
        stars = ["\\*" if row.regime == "escaped" else "" for row in rows]
        words = [f"{row.llc:.3g}{star}" for row, star in zip(rows, stars, strict=True)]
        a = f"{slope:.2f}".replace("-", "−")
        yield [f"{step:,}" if step else "the end", *words, a]


def cells(table: Table) -> Iterator[list[str]]:
    """Yields the columns' names and then each row."""
    yield [column.name for column in table.columns]
    yield from table.texts


def markdown(rows: Iterator[list[str]]) -> str:
    """Writes rows as a table, of which the first has the names of the columns."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def files() -> dict[str, str]:
    """Returns what the page should hold."""
    config = parameters.load(ROOT / "params.yaml")
    study = Study.read(config.plan("control"), ROOT / "results" / "control")
    parts = {
        "claims": claims(),
        "exponents": exponents(study, config.rules),
        "without": without(study, config.rules),
        "steps": steps(study),
        "measured": cells(sizes.measured(study)),
        "estimates": cells(
            models.estimates(study, published.read(ROOT / "data" / "published.yaml")).only(
                "model", "parameters", "sampled", "λ̂ ± s.e.", "95 % interval", "regime"
            )
        ),
        "quantisation": cells(
            experiments.quantisation(study).only(
                "model", "moved", "weights", "rise, millinats ± s.e.", "λ̂ ± s.e.", "change of λ̂"
            )
        ),
    }
    return {PAGE: filled(PAGE, parts)}


def filled(page: str, parts: Mapping[str, Iterator[list[str]]]) -> str:
    """Returns a page with tables in their places."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, rows in parts.items():
        table = markdown(rows)
        place = rf"(?s)(?<=<!-- {name} -->\n\n).*?(?=\n\n<!-- end -->)"
        text = re.sub(place, lambda _, table=table: table, text, count=1)
    return text


if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
