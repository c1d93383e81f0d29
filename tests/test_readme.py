"""What README says was found is what results/ holds."""

from __future__ import annotations

import re

from replicate.params import load
from replicate.results import Analysis, Calibrated, Claim, Coverage, Estimate, read
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "results"


def rows(start: str) -> list[list[str]]:
    """The cells of the tables' lines whose first cell is like `start`."""
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line.startswith("|"))
    return [line for line in cells if re.fullmatch(start, line[0])]


def test_its_verdicts_are_those_of_the_claims() -> None:
    told = {line[0]: line[2:5] for line in rows(r"[AC]\d+")}
    found = [{row.id: row.verdict for row in read(RESULTS / of / "claims.json", Claim)} for of in ("published", "demo", "paper")]
    assert told == {claim: [each[claim] for each in found] for claim in found[0]}


def test_its_estimates_are_those_of_the_demo() -> None:
    params = load(ROOT / "params.yaml")
    found = {row.model: row for row in read(RESULTS / "demo" / "estimates.json", Estimate) if row.estimator == "controlled"}
    told = rows("mini-.*")
    assert {line[0] for line in told} == set(found)
    for model, weights, parameters, _, llc, interval in told:
        row = found[model]
        assert row.llc is not None
        assert row.interval is not None
        assert weights == params.families[row.family].weights
        assert parameters.split()[0] == f"{row.parameters:,}"
        assert llc == f"{row.llc:.1f} ± {row.standard_error:.1f}"
        assert interval == f"{row.interval[0]:.1f} to {row.interval[1]:.1f}"


def test_its_four_lines_are_what_was_found() -> None:
    claims = {row.id: row for row in read(RESULTS / "demo" / "claims.json", Claim)}
    growth, share = claims["C1"], read(RESULTS / "published" / "anova.json", Analysis)[0]
    coverage, targets = read(RESULTS / "coverage.json", Coverage)[0], read(RESULTS / "calibration.json", Calibrated)
    assert growth.interval is not None
    assert f"explains {100 * share.shuffle:.0f} % of their variance, the model {100 * share.model:.0f} %" in README
    assert f"by {growth.effect:.1f} (95 % interval {growth.interval[0]:.1f} to {growth.interval[1]:.1f}) per doubling" in README
    assert f"{len(targets)} models of known λ, none missed" in README
    assert all(row.verdict != "outside" for row in targets)
    assert f"held the truth in {100 * coverage.share:.1f} % of {coverage.repeats} repeats" in README


def test_its_diagram_is_that_of_the_documentation() -> None:
    assert (ROOT / "docs" / "pipeline.mmd").read_text(encoding="utf-8").strip() in README
