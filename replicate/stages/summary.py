"""results/<study>/estimates.json → a table on the terminal. No torch."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from replicate.params import Params
from replicate.results import Estimate, read


def run(params: Params, study: str, results: Path) -> None:
    table = Table(title=f"{study} study: λ̂ by the estimator `controlled`, 95 % intervals")
    for column in ("model", "weights", "parameters", "sampled", "λ̂", "interval", "R-hat", "ESS", "failed chains"):
        table.add_column(column, justify="left" if column in ("model", "weights") else "right")
    for row in read(results / "estimates.json", Estimate):
        if row.estimator != "controlled":
            continue
        head = (row.model, params.families[row.family].weights, f"{row.parameters or 0:,}", f"{row.sampled_parameters or 0:,}")
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
    Console(width=120).print(table)
