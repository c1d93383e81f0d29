"""What speaks for the numbers: models of known λ, coverage, wrong samplers, what it cost, and what
each result is from.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicate.reporting.formatting import fixed, interval, number, percent, whole, with_error
from replicate.reporting.report.estimates import by_estimator
from replicate.reporting.report.evidence import Reference, Study
from replicate.reporting.report.table import Table, not_run, row

SHOWN = 12  # digits of a hash


def calibration(reference: Reference) -> Table:
    rows = []
    for found in reference.calibration:
        exact = "extrapolated" if found.ladder else number(found.exact)
        estimate = (with_error(found.llc, found.standard_error), interval(found.interval))
        health = (fixed(found.rhat), whole(found.evaluations))
        rows.append(
            row(
                found.target,
                whole(found.parameters),
                number(found.true_llc),
                exact,
                *estimate,
                *health,
                found.verdict,
            )
        )
    columns = (
        "target",
        "parameters",
        "λ",
        "exact",
        "λ̂ ± s.e.",
        "95 % interval",
        "R-hat",
        "gradients",
        "verdict",
    )
    note = (
        "Exact: what a perfect sampler of this step size and localisation would give; λ̂ is judged against that where it is known, else "
        "against λ. Extrapolated: λ̂ is from estimates at several nβ."
    )
    return Table("Models whose λ is known", columns, rows, note=note)


def coverage(reference: Reference) -> Table:
    rows = [
        row(
            found.target,
            number(found.true_llc),
            f"{found.covered} of {found.repeats}",
            percent(found.share),
            bounds(found.interval),
        )
        for found in reference.coverage
    ]
    return Table(
        "How often the 95 % interval holds the truth",
        ("target", "λ", "intervals that do", "share", "95 % interval of it"),
        rows,
    )


def bounds(share: tuple[float, float]) -> str:
    return f"{fixed(100 * share[0], 1)} to {percent(share[1])}"


def controls(reference: Reference) -> Table:
    rows = [
        row(
            found.mistake,
            found.target,
            number(found.expected),
            with_error(found.llc, found.standard_error),
            "caught" if found.caught else "passes" if found.mistake == "none" else "not caught",
        )
        for found in reference.controls
    ]
    note = "The first has no mistake in it and must pass."
    return Table(
        "Samplers that are wrong on purpose",
        ("mistake", "target", "expected", "λ̂ ± s.e.", "verdict"),
        rows,
        words=2,
        note=note,
    )


def cost(study: Study) -> Table:
    """Gradients of a minibatch that the chains of each part took."""
    rows = [
        row(found.part, found.family, whole(found.chains), whole(found.gradients))
        if found.chains
        else not_run(found.part, found.family)
        for found in study.cost
    ]
    if total := sum(found.gradients for found in study.cost):
        rows.append(
            row(
                "all",
                "",
                whole(sum(found.chains for found in study.cost)),
                whole(total),
                strong=True,
            )
        )
    return Table(
        f"Gradient evaluations, {study.name} study",
        ("part", "family", "chains", "gradients"),
        rows,
        words=2,
    )


def precision(study: Study) -> Table:
    """What an error of 1 % would take."""
    title = "Gradient evaluations for a standard error of 1 % of λ̂, by estimator"
    return by_estimator(study, title, lambda found: number(found.evaluations, 2))


def provenance(study: Study) -> Table:
    rows = []
    for found in study.provenance:
        if found.status == "not run":
            rows.append(not_run(found.model))
            continue
        source = (
            "trained here"
            if found.repository is None
            else f"{found.repository} at {(found.revision or '')[:SHOWN]}"
        )
        weights = ", ".join(
            (value or number(None))[:SHOWN] for value in (found.weights or {}).values()
        ) or number(None)
        hashes = (
            (found.windows or number(None))[:SHOWN],
            weights,
            (found.traces or number(None))[:SHOWN],
        )
        rows.append(row(found.model, source, *hashes, found.device or "not noted"))
    columns = ("model", "from", "windows", "weights", "traces", "sampled on")
    note = f"The first {SHOWN} digits of SHA-256; whole, with those of the parameters, in results/{study.name}/provenance.json."
    return Table(f"What each result is from, {study.name} study", columns, rows, words=6, note=note)


def packages(study: Study) -> list[str]:
    """Versions that were noted, once each."""
    found = dict.fromkeys(
        f"{name} {version}"
        for row in study.provenance
        for name, version in (row.versions or {}).items()
        if version
    )
    return sorted(found)


def windows(studies: Sequence[Study]) -> Table:
    rows = []
    for study in studies:
        for found in study.windows:
            counts = tuple(
                whole(value)
                for value in (
                    found.reviews,
                    found.kept,
                    found.dropped,
                    found.padded_labels,
                    found.vocabulary,
                )
            )
            rows.append(
                row(found.family, *counts, whole(found.length))
                if found.status == "run"
                else not_run(found.family)
            )
    return Table(
        "The text",
        (
            "family",
            "reviews",
            "kept",
            "dropped",
            "labels padded",
            "vocabulary",
            "tokens of a window",
        ),
        rows,
    )
