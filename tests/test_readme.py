"""What README says was found is what results/ holds in git; a run of the demo here may have put
others beside it.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from replicate.pipeline.config import load
from replicate.study.records import Analysis, Calibrated, Claim, Coverage, Estimate, read
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As they were committed."""
    folder = tmp_path_factory.mktemp("head")
    packed = subprocess.run(
        ["git", "archive", "HEAD", "results"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return folder / "results"


def rows(start: str) -> list[list[str]]:
    """The cells of the tables' lines whose first cell is like `start`."""
    cells = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.splitlines()
        if line.startswith("|")
    )
    return [line for line in cells if re.fullmatch(start, line[0])]


def test_its_verdicts_are_those_of_the_claims(results: Path) -> None:
    told = {line[0]: line[2:5] for line in rows(r"[AC]\d+")}
    found = [
        {row.id: row.verdict for row in read(results / of / "claims.json", Claim)}
        for of in ("published", "demo", "paper")
    ]
    assert told == {claim: [each[claim] for each in found] for claim in found[0]}


def test_its_estimates_are_those_of_the_demo(results: Path) -> None:
    params = load(ROOT / "params.yaml")
    found = {
        row.model: row
        for row in read(results / "demo" / "estimates.json", Estimate)
        if row.estimator == "controlled"
    }
    told = rows("mini-.*")
    assert {line[0] for line in told} == set(found)
    for model, weights, parameters, _, llc, interval in told:
        row = found[model]
        assert row.llc is not None
        assert row.interval is not None
        assert weights == params.families[row.family].weights
        assert parameters.split()[0] == f"{row.parameters:,}"
        assert llc == f"{row.llc:.2f} ± {row.standard_error:.2f}"
        assert interval == f"{row.interval[0]:.2f} to {row.interval[1]:.2f}"


def test_its_four_lines_are_what_was_found(results: Path) -> None:
    claims = {row.id: row for row in read(results / "demo" / "claims.json", Claim)}
    growth, share = claims["C1"], read(results / "published" / "anova.json", Analysis)[0]
    coverage, targets = (
        read(results / "coverage.json", Coverage)[0],
        read(results / "calibration.json", Calibrated),
    )
    assert growth.interval is not None
    assert (
        f"explains {100 * share.shuffle:.0f} % of their variance, the model {100 * share.model:.0f} %"
        in README
    )
    assert (
        f"by {growth.effect:.2f} per doubling (95 % interval {growth.interval[0]:.2f} to {growth.interval[1]:.2f} over shuffles)"
        in README
    )
    count = Counter(row.verdict for row in targets)
    assert count["outside"] == 0
    told = f"of {len(targets)} models {count['within 1 %']} come out within 1 %, {count['within the interval']} more within their interval"
    assert f"{told}, {count['within 5 %']} within 5 %" in README
    assert (
        f"over {coverage.repeats} repeats of a linear regression the 95 % interval held the truth in {100 * coverage.share:.1f} %"
        in README
    )


def test_its_diagram_is_that_of_the_documentation() -> None:
    assert (ROOT / "docs" / "pipeline.mmd").read_text(encoding="utf-8").strip() in README


def test_every_cost_in_it_was_measured() -> None:
    assert "COST" not in README
