"""What README and docs say of commands, parameters and numbers is so. `make docs` checks links."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator

import pytest
import yaml

from replicate.pipeline.cli import main
from replicate.pipeline.config import parse
from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TEXT = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in sorted(PAGES)
    if "_build" not in page.parts
}


@pytest.mark.parametrize("name", TEXT)
def test_every_command_that_is_named_is_there(name: str) -> None:
    text = TEXT[name]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    if not name.endswith("CHANGELOG.md"):  # which also names what is gone
        assert set(re.findall(r"python -m replicate ([a-z][a-z-]*)", text)) <= set(main.commands)
    for module in re.findall(r"python -m (benchmarks(?:\.\w+)?)", text):
        assert list(ROOT.glob(f"{module.replace('.', '/')}*")), module
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:`|    )make ([a-z]+)", text)) <= targets
    for words in re.findall(r"dvc repro((?: (?!--)[\w@<>.-]+)+)", text):
        for word in words.split():
            assert word.split("@")[0] in stages, word


@pytest.mark.parametrize("script", ["pipeline.py", "results.py"])
def test_what_a_script_writes_into_the_pages_is_there(script: str) -> None:
    """If not, `python docs/pipeline.py` and `python -m docs.results` write it."""
    for name, text in runpy.run_path(str(ROOT / "docs" / script))["files"]().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, name


def test_the_family_of_ones_own_is_read_as_the_page_writes_it() -> None:
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(tokenizers:.*?)```", TEXT["docs/own-family.md"], re.DOTALL)
    assert block
    for section in re.split(r"\n\n(?=\w)", block[1].strip()):
        head, _, lines = section.partition("\n")
        params = re.sub(rf"(?ms)^{head}.*?(?=^\S|\Z)", rf"\g<0>{lines}\n\n", params)
    config = parse(params)
    assert config.plan("pythia").full.transfer[0] == ("pythia-14m", 0.333)
    assert list(config.families["pythia"].models)[-1] == "pythia-1400m"
    assert config.families["pythia"].length == config.families["gpt2"].length


def results(name: str) -> list[dict]:
    return json.loads((ROOT / "results" / "control" / f"{name}.json").read_text(encoding="utf-8"))


def told(row: dict) -> str:
    return f"{row['llc']:.1f}\u00a0±\u00a0{row['standard_error']:.1f}"


def calibration() -> Iterator[str]:
    """Yields the lines of docs/calibration.md that hold numbers."""
    for row in results("calibration"):
        exact = "" if row["exact"] is None else f"{row['exact']:.1f}"
        number = f"{row['parameters']:,} | {row['true_llc']:.6g} | {exact}"
        yield f"| {row['target']} | {number} | {told(row)} | {row['verdict']} |"
    for row in results("controls"):
        caught = "caught" if row["caught"] else "not caught"
        yield f"| {row['control']} | {row['expected']:.1f} | {told(row)} | {caught} |"
    for row in results("coverage"):
        low, high = (100 * end for end in row["interval"])
        held = f"{row['covered']} of {row['repeats']} | {100 * row['share']:.1f} %"
        yield f"| {row['target']} | {row['setting']} | {held} | {low:.1f} to {high:.1f} % |"


def test_the_numbers_on_the_calibration_are_those_of_results() -> None:
    page = " ".join(TEXT["docs/calibration.md"].split("\n"))
    for line in calibration():
        assert line in page, "\n".join(calibration())
