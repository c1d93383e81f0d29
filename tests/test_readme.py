"""What README says was found is what results/ holds in git."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from replicate.study.records import Analysis, Calibrated, Coverage, Estimate, JudgedClaim, read
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = " ".join(README.split())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As they were committed: a run of the demo here may have put others in their place."""
    folder = tmp_path_factory.mktemp("head")
    command = ["git", "archive", "HEAD", "results"]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return folder / "results"


def rows(start: str) -> list[list[str]]:
    """The cells of the tables' lines whose first cell is like `start`."""
    lines = [line.strip("|").split("|") for line in README.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [line for line in cells if re.fullmatch(start, line[0])]


def test_its_verdicts_are_those_of_the_claims(results: Path) -> None:
    places = [results / of / "claims.json" for of in ("published", "control", "paper")]
    found = [{row.id: row.verdict for row in read(place, JudgedClaim)} for place in places]
    told = {line[0]: line[2:5] for line in rows(r"[ACR]\d+")}
    assert told == {claim: [each[claim] for each in found] for claim in found[0]}


def test_its_estimates_are_those_of_the_control_study(results: Path) -> None:
    estimates = read(results / "control" / "estimates.json", Estimate)
    found = [row for row in estimates if row.estimator == "controlled"]
    assert [[line[0], line[1], line[2].split()[0], *line[4:]] for line in rows("mini-.*")] == [
        [
            row.model,
            row.weights,
            f"{row.parameters:,}",
            f"{row.llc:.2f} ± {row.standard_error:.2f}",
            f"{row.interval[0]:.2f} to {row.interval[1]:.2f}",
        ]
        for row in found
        if row.interval
    ]


def test_its_bullets_are_what_was_found(results: Path) -> None:
    claims = {row.id: row for row in read(results / "control" / "claims.json", JudgedClaim)}
    growth, share = claims["C1"], read(results / "published" / "anova.json", Analysis)[0]
    trainings = {row.id: row for row in read(results / "sizes" / "claims.json", JudgedClaim)}["R3"]
    a = [trainings.effect or 0.0, *(trainings.interval or ())]
    exponent = "a = {:.2f} (95% interval {:.2f} to {:.2f} over trainings)".format(*a)
    coverage, *_ = read(results / "control" / "coverage.json", Coverage)
    count = Counter(
        row.verdict for row in read(results / "control" / "calibration.json", Calibrated)
    )
    low, high = growth.interval or (0, 0)
    assert count["outside"] == 0
    for told in (
        exponent.replace("-", "−"),
        f"explains {share.shuffle:.0%} of their variance, the model {share.model:.0%}.",
        f"by {growth.effect:.2f} per doubling (95% interval {low:.2f} to {high:.2f} over",
        f"of {count.total()} models {count['within 1 %']} come out within 1%,"
        f" {count['within the interval']} more within their interval, {count['within 5 %']} within",
        f"over {coverage.repeats} repeats of a linear regression the 95% interval held the truth in"
        f" {coverage.share:.1%}",
    ):
        assert told in PROSE.replace(" %", "%")
