"""What README and docs say of files, headings, commands and the calibration is so, and the diagram
is that of dvc.yaml.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import dvc
import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from replicate.__main__ import main
from tests.conftest import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
    ]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}


def tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


def anchors(text: str) -> set[str]:
    """As a forge makes them of headings."""
    parsed = list(tokens(text))
    headings = [
        parsed[i + 1].content for i, token in enumerate(parsed) if token.type == "heading_open"
    ]
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*\\]", "", heading).lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    links = [
        str(token.attrGet("href") or token.attrGet("src"))
        for token in tokens(TEXT[name])
        if token.type in ("link_open", "image")
    ]
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {link}"
        assert file.resolve().is_relative_to(ROOT), f"{name}: {link}"
        if anchor:
            assert MarkdownIt().normalizeLinkText(anchor) in anchors(
                file.read_text(encoding="utf-8")
            ), f"{name}: {link}"


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "/" not in name or name.startswith("docs/")]
)
def test_every_command_that_is_named_is_there(name: str) -> None:
    text, stages = (
        TEXT[name],
        yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"],
    )
    for command in re.findall(r"python -m replicate ([a-z][a-z-]*)", text):
        assert command in main.commands, f"{name}: python -m replicate {command}"
    for module in re.findall(r"python -m (benchmarks(?:\.\w+)?)", text):
        assert list(ROOT.glob(f"{module.replace('.', '/')}*")), f"{name}: python -m {module}"
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for target in re.findall(r"(?:`|    )make ([a-z]+)", text):
        assert target in targets, f"{name}: make {target}"
    for rest in re.findall(r"dvc repro((?: [\w@<>.-]+)+)", text):
        for word in rest.split():
            if re.fullmatch(r"[a-z]+@[\w<>.-]+", word) or word in stages:
                assert word.split("@")[0] in stages, f"{name}: dvc repro {word}"


def test_the_diagram_is_that_of_dvc_yaml() -> None:
    """If not, `python docs/pipeline.py` draws it."""
    for name, text in runpy.run_path(str(ROOT / "docs" / "pipeline.py"))["files"]().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, name


def results(name: str) -> list[dict]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def calibration() -> str:
    """The tables of docs/calibration.md."""
    rows = [
        (
            row["target"],
            f"{row['parameters']:,}",
            f"{row['true_llc']:.6g}",
            "" if row["exact"] is None else f"{row['exact']:.1f}",
            f"{row['llc']:.1f}\u00a0±\u00a0{row['standard_error']:.1f}",
            row["verdict"],
        )
        for row in results("calibration")
    ]
    caught = [
        (
            row["mistake"],
            f"{row['expected']:.1f}",
            f"{row['llc']:.1f}\u00a0±\u00a0{row['standard_error']:.1f}",
            "caught" if row["caught"] else "not caught",
        )
        for row in results("controls")
    ]
    (cover,) = results("coverage")
    low, high = cover["interval"]
    told = f"in {cover['covered']} of {cover['repeats']}: {cover['share']:.1%} (Wilson interval {low:.1%} to {high:.1%})".replace(
        "%", " %"
    )
    return "\n".join([*("| " + " | ".join(row) + " |" for row in (*rows, *caught)), told])


def test_the_numbers_on_the_calibration_are_those_of_results() -> None:
    page = set(TEXT["docs/calibration.md"].splitlines())
    for line in calibration().splitlines():
        assert line in page or line in TEXT["docs/calibration.md"], calibration()


def test_the_lines_that_troubleshooting_quotes_are_said_somewhere() -> None:
    """By this project, its set-up or DVC."""
    ours = [*(ROOT / "replicate").rglob("*.py"), ROOT / "requirements" / "install"]
    theirs = [
        Path(dvc.__file__).parent / name for name in ("lock.py", "rwlock.py", "utils/hydra.py")
    ]
    said = "\n".join(file.read_text(encoding="utf-8") for file in (*ours, *theirs))
    said = re.sub(r'"\s*\n\s*f?"', "", said).replace("`", "")
    quoted = re.findall(
        r"^\| `+([^|]+?)`+(?: \||;|,)", TEXT["docs/troubleshooting.md"], re.MULTILINE
    )
    assert len(quoted) > 20
    for line in quoted:
        for part in re.split(r" ?… ?|: |`", line):
            assert part.strip() in said, line
