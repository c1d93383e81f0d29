"""What README says was found is what results/ holds in git."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from replicate.study.records import Analysis, Calibrated, Coverage, JudgedClaim, read
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


def test_its_bullets_are_what_was_found(results: Path) -> None:
    share = read(results / "published" / "anova.json", Analysis)[0]
    claims = {row.id: row for row in read(results / "control" / "claims.json", JudgedClaim)}
    exponents = {part.name.split(": exponent")[0]: part for part in claims["R3"].parts}
    at = [exponents["(1910, 300)"], exponents["(30, 300)"]]
    at += [part for name, part in exponents.items() if "·d)" in name and " minus " not in name]
    a, low, high, practice, radius = (
        f"{value:.2f}".replace("-", "−")
        for value in (
            at[0].effect or 0,
            *(at[0].interval or ()),
            at[1].effect or 0,
            at[2].effect or 0,
        )
    )
    for told in (
        f"explains {share.shuffle:.0%} of GPT-2's variance, the model {share.model:.0%}:",
        f"a = {a} (95% interval {low} to {high}) at the study's n/ln n (nβ = 1910), {practice}"
        f" at practice's nβ = 30, and {radius} at a fixed radius",
    ):
        assert told in PROSE.replace(" %", "%")


def test_the_page_of_results_says_how_the_calibration_came_out(results: Path) -> None:
    text = " ".join(
        (ROOT / "docs" / "reference" / "results.md").read_text(encoding="utf-8").split()
    )
    coverage = read(results / "control" / "coverage.json", Coverage)[0]
    count = Counter(
        row.verdict for row in read(results / "control" / "calibration.json", Calibrated)
    )
    assert count["outside"] == 0
    for told in (
        f"Of {count.total()} models whose λ is known, {count['within 1 %']} come out within 1%,"
        f" {count['within the interval']} more within their interval, {count['within 5 %']} within",
        f"Over {coverage.repeats} repeats of a linear regression the 95% interval held the truth in"
        f" {coverage.share:.1%}",
    ):
        assert told in text.replace(" %", "%")


def words(text: str) -> int:
    """Counts the words of a page, without its code."""
    return len(re.sub(r"(?ms)^```.*?^```|^    .*?$|\||---", "", text).split())


def test_it_is_read_in_three_minutes() -> None:
    assert words(README) <= 600
