"""The report is one file that fetches nothing and runs nothing, tells every verdict and what was
not run, and is read by everybody.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from replicate.errors import UserError
from replicate.pipeline.config import load
from replicate.pipeline.stages import report
from replicate.reporting.formatting import effect, number, with_error
from replicate.reporting.report.svg import inlined
from replicate.study.records import Claim, Estimate, read
from tests.conftest import ROOT, replicate

RESULTS, PUBLISHED = ROOT / "results", ROOT / "data" / "published.yaml"
NAMES = ("published", "demo", "paper")
DRAWN = ("llc", "original", "transfer", "quantisation", "search-mini", "search-mini-llama")
MODELS = ("mini-34k", "mini-110k", "mini-350k", "mini-1050k", "mini-llama-200k", "mini-llama-600k")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"


def svg(name: str) -> str:
    """As matplotlib writes it, small."""
    return f"""<?xml version="1.0"?><svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 60">
    <g id="axes_1"><g id="line2d_1"><defs><path id="m1" d="M 0 0 L 0 3.50001" style="stroke: #000000"/></defs>
    <use xlink:href="#m1" x="9.123456" y="9" style="stroke: #0072B2"/></g>
    <g id="text_1"><text x="9" y="30" style="font-size: 8px; font-family: 'DejaVu Sans'">{name}</text></g></g></svg>"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small ones in the place of the study's own."""
    folder = tmp_path_factory.mktemp("generated")
    for name in [
        *(f"demo/figures/{each}" for each in (*DRAWN, *(f"diagnostics-{m}" for m in MODELS))),
        "paper/figures/llc",
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.svg").write_text(svg(name), encoding="utf-8")
    (folder / "reference" / "figures").mkdir(parents=True)
    (folder / "reference" / "figures" / "calibration.svg").write_text(
        svg("calibration"), encoding="utf-8"
    )
    return folder


def written(results: Path, figures: Path, page: Path) -> str:
    report.run(load(ROOT / "params.yaml"), results, PUBLISHED, figures, page)
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    written(RESULTS, figures, path)
    return path


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """results/, to be changed."""
    shutil.copytree(RESULTS, tmp_path / "results")
    return tmp_path / "results"


def change(file: Path, **values: Any) -> None:
    """Of a file's first record."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    rows[0] |= values
    file.write_text(json.dumps(rows), encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_fetches_nothing_and_runs_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for tag, attributes in Tags(text).found:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), (tag, attributes)
    assert "@import" not in text
    assert re.findall(r"url\((?!#)[^)]*\)", text) == []
    assert "http://" not in text
    assert "https://" not in text


def test_it_is_small_and_the_same_bytes_each_time(
    page: Path, figures: Path, tmp_path: Path
) -> None:
    assert page.stat().st_size < 3_000_000
    assert written(RESULTS, figures, tmp_path / "again.html").encode() == page.read_bytes()
    assert not re.search(rb"/root|/home|/tmp|/work", page.read_bytes())


@pytest.mark.parametrize("study", NAMES)
def test_every_claim_is_there_with_its_verdict_its_sentence_and_what_it_rests_on(
    page: Path, study: str
) -> None:
    text = html.unescape(page.read_text(encoding="utf-8"))
    for claim in read(RESULTS / study / "claims.json", Claim):
        whole = re.split(
            '<details class="claim"|</section>',
            text[text.index(f'<details class="claim" id="{claim.id}">') :],
        )[1]
        summary, *sides = whole.split('<div class="evidence ')
        ours = sides[NAMES.index(study)]
        told = re.findall(
            r"<span class=\"name\">(\w+): </span><span class=\"chip \w+\">.*?</svg>([\w ]+)",
            summary,
            re.DOTALL,
        )
        assert (study, claim.verdict) in told
        assert claim.claim in summary
        assert f"<p>{claim.why}</p>" in ours
        assert all(f"<code>{source.file}</code> {source.key}" in ours for source in claim.evidence)
        assert len(re.findall('<th scope="row"', ours)) == len(claim.parts)
        assert claim.effect is None or f"<dd>{effect(claim.effect)}</dd>" in ours


def test_every_estimate_is_there_or_shown_as_not_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for study in NAMES[1:]:
        for row in read(RESULTS / study / "estimates.json", Estimate):
            if row.status == "run":
                assert with_error(row.llc, row.standard_error) in text
    absent = re.findall(
        r"<b>λ̂ of each model, paper study, estimator controlled</b> <em>not run</em>: ([^<]*)", text
    )
    assert absent == [
        "gpt2, gpt2-medium, gpt2-large, gpt2-xl, llama-2-7b, llama-2-13b, llama-2-70b"
    ]
    compared = text[text.index("The protocol of 2023 on the models of 2023, paper study") :].split(
        "</table>"
    )[0]
    assert compared.count("not run") == 6


def test_a_replicated_figure_stands_beside_the_published_one_with_its_tolerance(
    copied: Path, figures: Path, tmp_path: Path
) -> None:
    rows = json.loads((copied / "paper" / "original.json").read_text())
    example = json.loads((copied / "demo" / "original.json").read_text())[0]
    same, other = [-4370.85, -771.82, 483.14, 798.83], [90_000.0, 90_100.0, 89_900.0, 90_050.0]
    rows[0] = example | {"family": "gpt2", "model": "gpt2", "groups": same}
    rows[1] = example | {"family": "gpt2", "model": "gpt2-medium", "groups": other}
    (copied / "paper" / "original.json").write_text(json.dumps(rows))
    text = written(copied, figures, tmp_path / "report.html")
    compared = text[text.index("The protocol of 2023 on the models of 2023, paper study") :].split(
        "</table>"
    )[0]
    assert re.findall(r"<td>(reproduced|differs)</td>", compared) == ["reproduced", "differs"]
    assert compared.count("not run") == 4


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("demo/claims.json", "why"),
        ("paper/claims.json", "why"),
        ("published/claims.json", "claim"),
        ("calibration.json", "target"),
        ("demo/original.json", "model"),
        ("demo/provenance.json", "repository"),
    ],
)
def test_what_results_hold_is_text_and_no_markup(
    copied: Path, figures: Path, tmp_path: Path, file: str, key: str
) -> None:
    change(copied / file, **{key: HOSTILE})
    text = written(copied, figures, tmp_path / "report.html")
    assert "<script" not in text
    assert "<img" not in text


def test_a_figure_that_was_made_to_do_harm_does_none() -> None:
    hostile = """<!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">
    <script>alert(1)</script><g onload="alert(1)" id="a"><foreignObject><p>x</p></foreignObject><image xlink:href="https://example.org/x"/>
    <use href="https://example.org/x#y"/><path d="M 0 0" style="fill: url(https://example.org); stroke: #0072B2" clip-path="url(//e.org)"/>
    <a href="javascript:alert(1)"><text>&lt;b&gt;</text></a><style>@import "//e.org"</style></g></svg>"""
    box, text = inlined(hostile, "figure-1")
    assert box == "0 0 9 9"
    assert (
        text
        == '<g id="figure-1"><g><image /><use /><path d="M 0 0" style="stroke:var(--blue, #0072b2)" /></g></g>'
    )


def test_figures_in_one_page_share_no_id_and_refer_to_their_own() -> None:
    (_, first), (_, second) = (inlined(svg("a"), f"figure-{i}") for i in (1, 2))
    for text in (first, second):
        ids = set(re.findall(r' id="([^"]+)"', text))
        assert set(re.findall(r'href="#([^"]+)"', text)) <= ids
        assert len(ids) == 2
    assert not set(re.findall(r' id="([^"]+)"', first)) & set(re.findall(r' id="([^"]+)"', second))
    assert 'style="stroke:currentColor"' in first
    assert "DejaVu" not in first


@pytest.mark.parametrize("content", [None, "", "no xml", "<html></html>", '<svg viewBox="x"/>'])
def test_a_figure_that_is_none_is_told_in_one_line(
    figures: Path, tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "generated"
    shutil.copytree(figures, folder)
    file = folder / "reference" / "figures" / "calibration.svg"
    file.unlink() if content is None else file.write_text(content)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = replicate("report", RESULTS, PUBLISHED, folder, tmp_path / "report.html", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "dvc repro" in done.stderr
    assert not (tmp_path / "report.html").exists()


def test_results_that_lack_a_claim_are_told(copied: Path, figures: Path, tmp_path: Path) -> None:
    change(copied / "demo" / "claims.json", id="Z9")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = replicate("report", copied, PUBLISHED, figures, tmp_path / "report.html", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "do not fit one another" in done.stderr


def test_damaged_results_are_told(copied: Path, figures: Path, tmp_path: Path) -> None:
    (copied / "coverage.json").write_text('[{"share": NaN}]')
    with pytest.raises(UserError, match="coverage"):
        written(copied, figures, tmp_path / "report.html")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (-4.2, "−4.2"),
        (641234.0, "641,200"),
        (1e-7, "1 × 10⁻⁷"),
        (-2.5e9, "−2.5 × 10⁹"),
    ],
)
def test_numbers_in_the_report(value: float | None, text: str) -> None:
    assert number(value) == text


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
def tab(browser: Any, page: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page from disk with the network off; what the console says and what is asked for stands
    in `said`.
    """
    context = browser.new_context(
        color_scheme=request.param,
        bypass_csp=True,
        offline=True,
        viewport={"width": 1280, "height": 900},
    )
    opened = context.new_page()
    opened.said = []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on(
        "request",
        lambda asked: opened.said.append(asked.url) if asked.url != page.as_uri() else None,
    )
    opened.goto(page.as_uri())
    yield opened
    context.close()


def test_a_browser_without_a_network_has_nothing_to_say(tab: Any) -> None:
    assert tab.title().startswith("Does the local learning coefficient")
    assert [line for line in tab.said if not line.startswith("data:")] == []


@pytest.mark.parametrize("opened", [False, True])
def test_axe_finds_no_violation(tab: Any, opened: bool) -> None:
    import axe_playwright_python

    if opened:
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    tab.evaluate(
        (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    )
    found = tab.evaluate("axe.run()")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_a_keyboard_opens_a_verdict(tab: Any) -> None:
    assert not tab.locator("#C1 .evidence").first.is_visible()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.locator("#C1 > summary").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#C1 .evidence").first.is_visible()


def test_print_shows_what_is_folded(tab: Any) -> None:
    folded = tab.locator(".evidence p, .chains figure svg, .parts table")
    assert not folded.first.is_visible()
    tab.emulate_media(media="print")
    heights = folded.evaluate_all(
        "all => all.filter(each => !each.closest('.again')).map(each => each.getBoundingClientRect().height)"
    )
    assert len(heights) > 50
    assert min(heights) > 0


def test_a_phone_scrolls_in_one_direction(browser: Any, page: Path) -> None:
    opened = browser.new_page(viewport={"width": 360, "height": 740})
    opened.goto(page.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") == 360
    opened.close()
