"""The paper: every number in it is one that a stage wrote, and the PDF has the same bytes each
time.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path

import pytest

from replicate.reporting.figures.style import LOOKS
from replicate.study.records import JudgedClaim, read
from tests.conftest import ROOT, replicate

TEXT = (ROOT / "paper" / "main.tex").read_text(encoding="utf-8")
BIBLIOGRAPHY = (ROOT / "paper" / "references.bib").read_text(encoding="utf-8")
NAMED = re.compile(r"\\setresult\{([^}]*)\}\{(.*)\}")
latex = pytest.mark.skipif(shutil.which("latexmk") is None, reason="LaTeX is not installed")


@pytest.fixture
def named(project: Path) -> dict[str, str]:
    files = project.glob("paper/generated/*/tables/values.tex")
    return dict(pair for file in files for pair in NAMED.findall(file.read_text(encoding="utf-8")))


@pytest.fixture
def paper(project: Path, tmp_path: Path) -> Path:
    """The paper's folder, ready to be built."""
    shutil.copytree(project / "paper", tmp_path / "paper")
    for file in ("main.tex", "references.bib"):
        shutil.copy(ROOT / "paper" / file, tmp_path / "paper")
    return tmp_path / "paper"


def test_every_number_is_one_that_a_stage_wrote(named: dict[str, str]) -> None:
    keys = set(re.findall(r"\\result\{([^}#]*)\}", re.sub("(?m)^%.*", "", TEXT)))
    for macro, block in (("theirs", "protocol"), ("ours", "sampling")):
        for study, family in re.findall(rf"\\{macro}\{{(\w+)\}}\{{([\w-]+)\}}", TEXT):
            keys.add(f"{study}/{family}/{block}/shuffles")
    assert len(keys) > 80
    assert keys <= set(named)


def test_every_table_and_figure_that_is_read_was_written(project: Path) -> None:
    rows = re.findall(r"\\rowsfrom\{([^#}]*)\}", TEXT)
    figures = re.findall(r"\\includegraphics\[[^]]*\]\{\\generated\{([^#}]*)\}\}", TEXT)
    files = [f"{name}.tex" for name in rows] + figures
    assert len(files) > 8
    lacking = [f for f in files if not (project / "paper" / "generated" / f).is_file()]
    assert lacking == []


def test_what_was_not_run_says_so(project: Path, named: dict[str, str]) -> None:
    for row in read(project / "results" / "paper" / "claims.json", JudgedClaim):
        assert (named[f"paper/{row.id}/verdict"] == r"\notrun") == (row.verdict == "not run")
    assert named["paper/gpt2/llc"] == r"\notrun"
    assert named["control/10k-1/llc"] == "5"


def test_every_figure_and_table_is_referred_to() -> None:
    labels = set(re.findall(r"\\label\{((?:fig|tab):[^}]*)\}", TEXT))
    assert labels - set(re.findall(r"\\ref\{([^}]*)\}", TEXT)) == set()


def test_every_entry_of_the_bibliography_is_cited_and_every_citation_has_one() -> None:
    cited = {key for keys in re.findall(r"\\cite[pt]?\{([^}]*)\}", TEXT) for key in keys.split(",")}
    assert cited == set(re.findall(r"^@\w+\{([^,]*),", BIBLIOGRAPHY, re.MULTILINE))


def test_colours_of_figures_differ_in_grey() -> None:
    """The first four, which one panel has at once; the others are told apart by their marks."""
    grey = sorted(
        0.2126 * r + 0.7152 * g + 0.0722 * b
        for r, g, b in (bytes.fromhex(colour[1:]) for colour, _ in LOOKS[:4])
    )
    assert min(b - a for a, b in itertools.pairwise(grey)) > 3
    assert len({marker for _, marker in LOOKS}) == len(LOOKS)


@latex
def test_the_pdf_has_the_same_bytes_each_time_and_no_warnings(paper: Path, tmp_path: Path) -> None:
    made = []
    for name, zone in (("one", "UTC"), ("another, with a longer name", "Asia/Tokyo")):
        folder = shutil.copytree(paper, tmp_path / name / "paper")
        done = replicate("paper", "paper/main.tex", cwd=folder.parent, TZ=zone)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Warning" not in done.stdout
        assert "full " not in done.stdout
        made.append((folder / "main.pdf").read_bytes())
    assert made[0] == made[1]


def test_labels_that_latexmk_left_unsettled_are_settled(tmp_path: Path) -> None:
    """It compares times and sizes, and a label may move from page 5 to 6 within one second."""
    (tmp_path / "main.tex").touch()
    latexmk = tmp_path / "latexmk"
    latexmk.write_text(
        "#!/bin/sh\n"
        'case "$*" in *" -g "*) : > main.log;;\n'
        '*) echo "LaTeX Warning: Label(s) may have changed. Rerun to get them." > main.log;; esac\n'
    )
    latexmk.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = replicate("paper", "main.tex", cwd=tmp_path, PATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@latex
def test_a_number_that_no_stage_wrote_stops_the_build(paper: Path) -> None:
    wrong = TEXT.replace(r"\result{control/C1/effect}", r"\result{control/C1/efect}", 1)
    (paper / "main.tex").write_text(wrong, encoding="utf-8")
    done = replicate("paper", "paper/main.tex", cwd=paper.parent)
    assert done.returncode == 2
    assert "Unknown result 'control/C1/efect'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
