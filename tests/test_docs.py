"""What README and docs say of commands, parameters and numbers is so. `make docs` checks links."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Iterator

import pytest
import yaml

from benchmarks import hessian
from docs import generated
from replicate.pipeline.cli import STAGES, main
from replicate.pipeline.config import Config, Family, parse
from replicate.pipeline.config.family import Sampling, Search
from replicate.study import records
from tests.conftest import ROOT
from tests.test_readme import words

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
    for named in re.findall(r"dvc repro((?: (?!--)[\w@<>.-]+)+)", text):
        for word in named.split():
            assert word.split("@")[0] in stages, word


@pytest.mark.parametrize("script", ["pipeline.py", "results.py"])
def test_what_a_script_writes_into_the_pages_is_there(script: str) -> None:
    """If not, `python docs/pipeline.py` and `python -m docs.results` write it."""
    for name, text in runpy.run_path(str(ROOT / "docs" / script))["files"]().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, name


def prose() -> Iterator[tuple[str, str]]:
    """Yields the path and the text of every page below docs/ that is no reference."""
    for name, text in TEXT.items():
        if name.startswith("docs/") and not name.startswith("docs/reference/"):
            yield name, text
    for file in (ROOT / "docs").rglob("*.ipynb"):
        if "_build" not in file.parts:
            cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
            texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
            yield str(file.relative_to(ROOT)), "\n".join(texts)


def test_the_book_lists_every_command_and_every_key_of_parameters_and_results() -> None:
    commands, params, files = generated.commands(), generated.params(), generated.files()
    for name, command in main.commands.items():
        assert re.search(rf"## {name}\n|`{name}[ `]", commands), name
        if name not in STAGES:
            options = {
                option for each in command.params for option in each.opts if option[0] == "-"
            }
            assert {option for option in options if f"`{option}" not in commands} == set()
    for block in (Config, Family, Sampling, Search):
        assert {key for key in block.model_fields if f"| `{key}` |" not in params} == set()
    for name, kind in records.FILES.items():
        table = files.split(f"### {name}.json\n")[1].split("###")[0]
        assert {field for field in kind.model_fields if f"| `{field}` |" not in table} == set()


def test_besides_the_reference_there_are_few_pages_and_they_are_short() -> None:
    lengths = {name: words(text) for name, text in prose()}
    assert len(lengths) <= 14, sorted(lengths)
    assert {name: length for name, length in lengths.items() if length > 700} == {}


def test_the_families_of_ones_own_are_read_as_the_page_writes_them() -> None:
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT["docs/tutorial/own-family.md"], re.DOTALL)
    for section in re.split(r"\n\n(?=\w)", "\n\n".join(map(str.strip, blocks))):
        head, _, lines = section.partition("\n")
        params = re.sub(rf"(?ms)^{head}.*?(?=^\S|\Z)", rf"\g<0>{lines}\n\n", params)
    config = parse(params)
    assert list(config.families["mine"].models) == ["mine-12k", "mine-43k"]
    assert config.plan("mine").quantised is None


def results(name: str) -> list[dict]:
    return json.loads((ROOT / "results" / "control" / f"{name}.json").read_text(encoding="utf-8"))


def told(row: dict) -> str:
    return f"{row['llc']:.1f}\u00a0±\u00a0{row['standard_error']:.1f}"


def calibration() -> Iterator[str]:
    """Yields the lines of docs/reference/measurements.md on models of known λ."""
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


def harmonic() -> Iterator[str]:
    """Yields the lines of docs/reference/measurements.md on the harmonic part of λ̂."""
    measured = {
        (row["model"], row["nbeta"], row["localization"]): row["llc"]
        for row in results("settings")
        if (row["loss"], row["text"]) == ("tokens", "corpus")
        and row["step"] is row["rescaled"] is None
    }
    for model, found in json.loads(hessian.FILE.read_text())["models"].items():
        for nbeta, gamma in hessian.SETTINGS:
            few, many = (found[n]["harmonic"][f"{nbeta:g}, {gamma:g}"] for n in ("1024", "4096"))
            said = [f"{each[0]:.3g} ± {each[1]:.1g}" if each else "none" for each in (few, many)]
            llc = measured[model, nbeta, gamma]
            share = f"{many[0] / llc:.0%}".replace("%", " %") if many else ""
            yield f"| {model} | {nbeta:g}, {gamma:g} | {llc:.3g} | {' | '.join(said)} | {share} |"


@pytest.mark.parametrize("lines", [calibration, harmonic])
def test_the_numbers_on_measurements_are_those_of_results(
    lines: Callable[[], Iterator[str]],
) -> None:
    page = " ".join(TEXT["docs/reference/measurements.md"].split("\n"))
    for line in lines():
        assert line in page, "\n".join(lines())
