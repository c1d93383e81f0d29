"""The report is one file that fetches nothing and runs nothing, tells every verdict and what was
not run, and can be read by everybody.
"""

from __future__ import annotations

import contextlib
import html
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from replicate.errors import UserError
from replicate.pipeline.config import Config
from replicate.pipeline.stages import read as reading
from replicate.pipeline.stages import report
from replicate.reporting.figures.style import save
from replicate.reporting.formatting import effect, with_error
from replicate.reporting.report.page import inlined, render
from replicate.reporting.results import Reference, Study
from replicate.study.records import Estimate, JudgedClaim, Refused, read, write
from tests.conftest import ROOT
from tests.reporting.records import made

NAMES = ("published", "control", "demo", "paper", "pythia")
CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
UNFOLD = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.fixture
def page(project: Path) -> str:
    return (project / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def changed(project: Path, tmp_path: Path) -> Path:
    """The project, to be changed."""
    return shutil.copytree(project, tmp_path / "project")


def written(config: Config, folder: Path) -> str:
    with contextlib.chdir(folder):
        report.run(config)
    return (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_fetches_nothing_and_runs_nothing(page: str) -> None:
    for tag, attributes in Tags(page).found:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), (tag, attributes)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)[^)]*\)", page) == []
    assert re.findall(r"https?://", page) == []


def test_no_id_is_given_twice_and_every_reference_leads_somewhere(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Tags(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert {one or other for one, other in referred} <= set(ids)


def test_it_is_small_and_the_same_bytes_each_time(config: Config, changed: Path, page: str) -> None:
    assert len(page) < 2_000_000
    assert written(config, changed) == page
    assert str(changed.parent) not in page


@pytest.mark.parametrize("study", NAMES)
def test_every_claim_is_there_with_its_verdict_its_sentence_and_what_it_rests_on(
    project: Path, page: str, study: str
) -> None:
    text = html.unescape(page)
    for claim in read(project / "results" / study / "claims.json", JudgedClaim):
        start = text.index(f'<details class="claim" id="{claim.id}">')
        whole = re.split('<details class="claim"|</section>', text[start + 1 :])[0]
        summary, *evidence = whole.split('<div class="evidence ')
        ours = evidence[NAMES.index(study)]
        chip = r"<span class=\"name\">(\w+): </span><span class=\"chip \w+\">.*?</svg>([\w ]+)"
        assert (study, claim.verdict) in re.findall(chip, summary, re.DOTALL)
        assert claim.claim in summary
        assert f"<p>{claim.why}</p>" in ours
        assert all(f"<code>{each.file}</code> {each.key}" in ours for each in claim.evidence)
        assert len(re.findall('<th scope="row"', ours)) == len(claim.parts)
        assert claim.effect is None or f"<dd>{effect(claim.effect)}</dd>" in ours


def test_every_estimate_is_there_or_said_to_be_not_run(
    project: Path, config: Config, page: str
) -> None:
    for row in read(project / "results" / "control" / "estimates.json", Estimate):
        assert with_error((row.llc, row.standard_error)) in page
    models = ", ".join(config.plan("paper").models)
    assert f"λ̂ ± s.e. by estimator, paper study</b> <em>not run</em>: {models}" in page
    assert f"paper: no λ̂ of {models}; not all of curve, transfer, original, quantisation." in page


def test_a_replicated_figure_stands_beside_the_published_one_with_its_tolerance(
    config: Config, changed: Path
) -> None:
    same, other = [-4370.85, -771.82, 483.14, 798.83], [90_000.0, 90_100.0, 89_900.0, 90_050.0]
    rows = [
        made("original", family="gpt2", model="gpt2", shuffles=same),
        made("original", family="gpt2", model="gpt2-medium", shuffles=other),
    ]
    write(changed / "results" / "paper" / "original.json", rows)
    refused = Refused(family="gpt2", model="gpt2-xl", path="data/x", reason="another nβ")
    write(changed / "results" / "paper" / "refused.json", [refused])
    with contextlib.chdir(changed):
        reading.run(config, "paper")
    text = written(config, changed)
    start = text.index("<caption>The protocol of 2023 on the models of 2023, paper study")
    compared = text[start:].split("</table>")[0]
    assert re.findall("reproduced|differs", compared) == ["reproduced", "differs"]
    assert compared.count("not run") == 4
    assert "<code>data/x</code></dt><dd>another nβ</dd>" in text


@pytest.mark.parametrize(
    ("file", "old"),
    [("control/claims.json", '"why": "'), ("control/calibration.json", '"target": "')],
)
def test_what_results_hold_is_text_and_no_markup(
    config: Config, changed: Path, file: str, old: str
) -> None:
    path = changed / "results" / file
    path.write_text(path.read_text().replace(old, f"{old}<script>alert(1)</script>", 1))
    text = written(config, changed)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_ids_of_a_figure_are_its_own() -> None:
    drawn = '<?xml?><svg width="9pt" viewBox="0 0 9 9"><style>*{}</style>{}</svg>'
    body = '<path id="m1"/><use href="#m1"/><g clip-path="url(#p1)" style="fill: #a1b2c3"/>'
    assert inlined(drawn.replace("{}</svg>", f"{body}</svg>"), "f") == (
        'viewBox="0 0 9 9"><path id="f-m1"/><use href="#f-m1"/>'
        '<g clip-path="url(#f-p1)" style="fill: #a1b2c3"/>'
    )


def test_without_figures_the_report_says_what_draws_them(config: Config, changed: Path) -> None:
    shutil.rmtree(changed / "paper" / "generated" / "control")
    (changed / "report.html").unlink()
    with pytest.raises(UserError, match="dvc repro read@control"):
        written(config, changed)
    assert not (changed / "report.html").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield opened
        opened.close()


@pytest.fixture(params=["light", "dark"])
def tab(browser: Any, project: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened from disk without a network. `log` has the console's messages, and the
    addresses that were requested.
    """
    context = browser.new_context(color_scheme=request.param, bypass_csp=True, offline=True)
    opened = context.new_page()
    opened.log = []
    opened.on("console", lambda message: opened.log.append(message.text))
    opened.on("request", lambda requested: opened.log.append(requested.url))
    opened.goto((project / "report.html").as_uri())
    yield opened
    context.close()


def test_a_browser_without_a_network_has_nothing_to_say(tab: Any) -> None:
    assert tab.title().startswith("Does the local learning coefficient")
    assert [line for line in tab.log if not line.startswith("data:")] == [tab.url]


@pytest.mark.parametrize("opened", [pytest.param(False, marks=pytest.mark.slow), True])
def test_axe_finds_no_violation(tab: Any, opened: bool) -> None:
    import axe_playwright_python

    if opened:
        tab.evaluate(UNFOLD)
    script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    tab.evaluate(script.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run()")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


class Drawn(dict[str, str]):
    """Figures of which only some are drawn; the others are empty."""

    def __missing__(self, name: str) -> str:
        return '<svg viewBox="0 0 9 9"></svg>'


@pytest.fixture
def own(config: Config, tmp_path: Path) -> Path:
    """The report of the results that the repository holds, with the figure that is not folded."""
    known = Reference.read(ROOT / config.paths.published, ROOT / config.paths.results)
    figures = {name: Drawn() for name in (*config.studies, "reference")}
    studies = []
    for name in config.studies:
        study = Study.read(config.plan(name), ROOT / config.paths.study(name))
        if study.settings:
            drawing = reading.drawings(study, known.figures, config.rules)["sizes"]
            save(drawing(), tmp_path / name, ("svg",))
            figures[name]["sizes"] = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        studies.append(study)
    file = tmp_path / "report.html"
    file.write_text(render(studies, known, figures, config.rules), encoding="utf-8")
    return file


def seen(browser: Any, file: Path) -> str:
    """Returns the text that a reader sees before anything is unfolded."""
    with contextlib.closing(browser.new_context(bypass_csp=True, offline=True)) as context:
        opened = context.new_page()
        opened.goto(file.as_uri())
        return opened.evaluate("document.body.innerText")


def test_it_is_read_in_a_few_minutes_before_anything_is_unfolded(
    browser: Any, project: Path, own: Path
) -> None:
    for file in (project / "report.html", own):
        assert 500 < len(seen(browser, file).split()) <= 1500, file


def test_the_figure_that_answers_the_question_comes_first_and_then_the_verdicts(
    browser: Any, own: Path
) -> None:
    text = own.read_text(encoding="utf-8")
    assert text.index("<figure") == text.index('<figure id="figure-control-sizes"')
    assert text.index("<figure") < text.index('class="claim"') < text.index('class="part"')
    words = seen(browser, own)
    assert "λ̂ grows with model size" in words


def test_a_link_opens_the_section_that_it_leads_to(tab: Any) -> None:
    assert not tab.locator("#calibration").is_visible()
    tab.locator('nav a[href="#calibration"]').click()
    assert tab.locator("#calibration").is_visible()


def test_a_keyboard_opens_a_verdict(tab: Any) -> None:
    assert not tab.locator("#C1 .evidence").first.is_visible()
    tab.locator("#C1 > summary").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#C1 .evidence").first.is_visible()


def test_print_shows_what_is_folded(tab: Any) -> None:
    folded = tab.locator(".evidence p, .chains figure svg, .parts table")
    assert not folded.first.is_visible()
    tab.emulate_media(media="print")
    heights = folded.evaluate_all("all => all.map(each => each.getBoundingClientRect().height)")
    assert min(heights) > 0


def test_a_phone_scrolls_in_one_direction(tab: Any) -> None:
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.evaluate(UNFOLD)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
