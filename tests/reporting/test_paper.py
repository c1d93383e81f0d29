"""The write-up: every number is one that a stage wrote, what was not run says so, and the PDF has
the same bytes each time.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from replicate.reporting import tables, values
from replicate.reporting.figures.style import LOOKS
from replicate.study.records import Claim, Estimate, Reexamined, read
from tests.conftest import ROOT, replicate

TEXT = (ROOT / "paper" / "main.tex").read_text(encoding="utf-8")
BIBLIOGRAPHY = (ROOT / "paper" / "references.bib").read_text(encoding="utf-8")
DEMO = ROOT / "results" / "demo"
NAMED = re.compile(r"\\setresult\{([^}]*)\}\{(.*)\}")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """paper/ with what the reading stages write into it from the results in git."""
    root = tmp_path_factory.mktemp("write-up")
    shutil.copytree(
        ROOT / "paper", root / "paper", ignore=shutil.ignore_patterns("generated", "main.[!t]*")
    )
    figures = ROOT / "data" / "published.yaml"
    out = root / "paper" / "generated"
    for study in ("demo", "paper"):
        for stage in ("figures", "tables"):
            done = replicate(
                stage, study, ROOT / "results" / study, figures, out / study / stage, cwd=ROOT
            )
            assert done.returncode == 0, done.stderr
    done = replicate(
        "reference", ROOT / "results", figures, ROOT / "benchmarks", out / "reference", cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return root / "paper"


def named(generated: Path) -> dict[str, str]:
    files = generated.glob("generated/*/tables/values.tex")
    return dict(pair for file in files for pair in NAMED.findall(file.read_text(encoding="utf-8")))


def test_every_number_is_one_that_a_stage_wrote(generated: Path) -> None:
    keys = set(re.findall(r"\\result\{([^}#]*)\}", re.sub("(?m)^%.*", "", TEXT)))
    assert len(keys) > 80
    assert keys <= set(named(generated))


def test_what_was_not_run_is_so_in_the_text(generated: Path) -> None:
    found = named(generated)
    for row in read(ROOT / "results" / "paper" / "claims.json", Claim):
        assert (found[f"paper/{row.id}/verdict"] == tables.NOT_RUN) == (row.verdict == "not run")
    for row in read(ROOT / "results" / "paper" / "estimates.json", Estimate):
        if row.estimator == "controlled":
            assert (found[f"paper/{row.model}/llc"] == tables.NOT_RUN) == (row.status == "not run")


def test_a_range_is_that_of_the_models_of_its_family() -> None:
    rows = [row for row in read(DEMO / "original.json", Reexamined) if row.family == "mini"]
    found = values.original(rows, ["mini", "other"])
    spreads = [row.spread[-1] or 0.0 for row in rows]
    assert (
        found["mini/original/spread32"]
        == f"{min(spreads):.0f} to {float(f'{max(spreads):.3g}'):.0f}"
    )
    assert found["other/original/spread32"] == tables.NOT_RUN


def test_every_figure_and_table_is_referred_to() -> None:
    labels = set(re.findall(r"\\label\{((?:fig|tab):[^}]*)\}", TEXT))
    assert labels - set(re.findall(r"\\ref\{([^}]*)\}", TEXT)) == {
        "fig:demo/diagnostics-mini-1050k"
    }


def test_every_entry_of_the_bibliography_is_cited_and_every_citation_has_one() -> None:
    cited = {key for keys in re.findall(r"\\cite[pt]?\{([^}]*)\}", TEXT) for key in keys.split(",")}
    assert cited == set(re.findall(r"^@\w+\{([^,]*),", BIBLIOGRAPHY, re.MULTILINE))


def test_sentences_of_results_are_safe_for_latex() -> None:
    assert (
        tables.escaped("λ̂ ≤ 0 at w*: 5 % & #_ of nβ")
        == r"$\llc$ $\le$ 0 at $w^*$: 5 \% \& \#\_ of n$\beta$"
    )


def test_colours_of_figures_differ_in_grey() -> None:
    """The first four, which one panel has at once; the others are told apart by their marks."""
    grey = sorted(
        0.2126 * r + 0.7152 * g + 0.0722 * b
        for r, g, b in (bytes.fromhex(colour[1:]) for colour, _ in LOOKS[:4])
    )
    assert min(b - a for a, b in itertools.pairwise(grey)) > 3
    assert len({marker for _, marker in LOOKS}) == len(LOOKS)


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="LaTeX is not installed")
def test_the_pdf_has_the_same_bytes_each_time_and_no_warnings(
    generated: Path, tmp_path: Path
) -> None:
    made = []
    for name in ("one", "another, with a longer name"):
        folder = tmp_path / name / "paper"
        shutil.copytree(generated, folder)
        done = replicate(
            "paper", "paper/main.tex", cwd=folder.parent, TZ="Asia/Tokyo" if made else "UTC"
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stdout
        assert "full " not in done.stdout
        made.append((folder / "main.pdf").read_bytes())
    assert made[0] == made[1]


@pytest.mark.skipif(shutil.which("latexmk") is None, reason="LaTeX is not installed")
def test_a_number_that_no_stage_wrote_stops_the_build(generated: Path, tmp_path: Path) -> None:
    shutil.copytree(generated, tmp_path / "paper")
    (tmp_path / "paper" / "main.tex").write_text(
        TEXT.replace(r"\result{demo/C1/effect}", r"\result{demo/C1/efect}", 1), encoding="utf-8"
    )
    done = replicate("paper", "paper/main.tex", cwd=tmp_path)
    assert done.returncode == 2
    assert "Unknown result 'demo/C1/efect'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_costs_that_were_not_measured_are_not_run() -> None:
    reports = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    bare = {
        machine: {key: value for key, value in each.items() if key != "demo"}
        for machine, each in reports.items()
    }
    assert values.costs(bare)["demo"] == tables.NOT_RUN
    other = {
        "another": {"works": {}, "demo": {"seconds": {"search": {"mini": 60, "mini-llama": 30}}}}
    }
    found = values.costs(bare | other)
    assert (found["demo/search"], found["demo/machine"]) == ("1.5", "another")
    assert bare[found["machine"]]["works"]
    gpu = {
        "a GPU": {
            "machine": {"gpu": "a GPU"},
            "works": {},
            "plan": {"gpt2": {"seconds": 0.25, "memory": 3e9}},
        }
    }
    without = {machine: each for machine, each in bare.items() if not each["machine"]["gpu"]}
    assert values.costs(without)["gpu"] == tables.NOT_RUN
    found = values.costs(without | gpu)
    assert (found["gpu"], found["gpu/gpt2/seconds"], found["gpu/gpt2/memory"]) == (
        "a GPU",
        "0.25",
        "3",
    )
