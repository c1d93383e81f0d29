"""results/ → a study's estimates and verdicts on the terminal. No torch."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from replicate.pipeline.config import Params
from replicate.study.records import Calibrated, Claim, Coverage, Estimate, Trace, read


def run(params: Params, study: str, results: Path) -> None:
    console = Console(width=120)
    console.print(estimates(params, study, results / study))
    for row in read(results / study / "traces.json", Trace):
        for line in row.advice:
            console.print(f"{row.model}: {line}")
    console.print(verdicts(study, results / study))
    calibrated, coverage = (
        read(results / "calibration.json", Calibrated),
        read(results / "coverage.json", Coverage),
    )
    outside = [row.target for row in calibrated if row.verdict == "outside"]
    covered = ", ".join(
        f"{row.share:.1%} of {row.repeats} intervals hold the truth" for row in coverage
    )
    found = f"{', '.join(outside)} missed" if outside else "none missed"
    console.print(f"calibration: {len(calibrated)} models of known λ, {found}; {covered}")


def estimates(params: Params, study: str, results: Path) -> Table:
    table = Table(title=f"{study} study: λ̂ by the estimator `controlled`, 95 % intervals")
    for column in (
        "model",
        "weights",
        "parameters",
        "sampled",
        "λ̂",
        "interval",
        "R-hat",
        "ESS",
        "failed chains",
    ):
        table.add_column(column, justify="left" if column in ("model", "weights") else "right")
    for row in read(results / "estimates.json", Estimate):
        if row.estimator != "controlled":
            continue
        head = (
            row.model,
            params.families[row.family].weights,
            f"{row.parameters or 0:,}",
            f"{row.sampled_parameters or 0:,}",
        )
        if row.status == "not run":
            table.add_row(*head[:2], "", "", "not run")
            continue
        found = "–" if row.llc is None else f"{row.llc:.1f} ± {row.standard_error:.1f}"
        between = "–" if row.interval is None else f"{row.interval[0]:.1f} to {row.interval[1]:.1f}"
        health = (
            f"{row.rhat:.2f}" if row.rhat else "–",
            f"{row.ess:.0f}" if row.ess else "–",
            f"{row.failed_chains} of {row.chains}",
        )
        table.add_row(*head, found, between, *health)
    return table


def verdicts(study: str, results: Path) -> Table:
    table = Table(
        "claim", "", "verdict", "effect", "interval", title=f"{study} study: the write-up's claims"
    )
    for row in read(results / "claims.json", Claim):
        effect = "" if row.effect is None else f"{row.effect:.3g}"
        between = "" if row.interval is None else f"{row.interval[0]:.3g} to {row.interval[1]:.3g}"
        table.add_row(row.id, row.claim, row.verdict, effect, between)
    return table
