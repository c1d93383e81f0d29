"""Renders the report from a template.

The template decides what is shown and in which order, and calls the functions that make tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from replicate.reporting.expressions import FILTERS
from replicate.reporting.report import brief
from replicate.reporting.results import Reference, Study
from replicate.reporting.tables import experiments, models, reference, sizes
from replicate.study.claims import CLAIMS, Rules

PUBLISHED = "published"
KINDS = {  # verdict → class in style.css
    "supported": "supported",
    "not supported": "against",
    "inconclusive": "open",
    "not decided here": "open",
    "not run": "unrun",
}
FIGURES = {  # claim → figure of each study; {} becomes the name of its full-precision family
    "C1": "llc",
    "C2": "llc",
    "C3": "search-{}",
    "C4": "search-{}",
    "C5": "search-{}",
    "C7": "original",
    "C8": "transfer",
    "C9": "llc",
    "C10": "quantisation",
    "C11": "llc",
}

Figures = Mapping[str, Mapping[str, str]]  # study, or `reference` → figure → SVG


def render(studies: Sequence[Study], known: Reference, figures: Figures, rules: Rules) -> str:
    """Returns the whole HTML file.

    Args:
        studies: the studies in the order of the page.
        known: the results that belong to no study.
        figures: the SVG figures of each study, and the figure `calibration` of `reference`.
        rules: the rules by which the claims were judged.
    """
    environment = Environment(
        loader=PackageLoader("replicate.reporting.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {"cited": brief.cited, "kind": KINDS.__getitem__}
    environment.globals |= {"models": models, "experiments": experiments, "tables": reference}
    environment.globals["sizes"] = sizes
    judged = {PUBLISHED: known.claims} | {study.name: study.claims for study in studies}
    return environment.get_template("page.html.j2").render(
        studies=studies,
        reference=known,
        rules=rules,
        brief=brief,
        judged={name: {claim.id: claim for claim in claims} for name, claims in judged.items()},
        tests={claim.id: claim.rule for claim in CLAIMS},
        shown={
            study.name: {key: _figure(study, name) for key, name in FIGURES.items()}
            for study in studies
        },
        drawing=lambda study, name: inlined(figures[study][name], f"figure-{study}-{name}"),
    )


def _figure(study: Study, name: str) -> str:
    """Returns the name of a claim's figure; that of trainings where sizes were trained several
    times.
    """
    if name == "llc" and study.settings:
        return "sizes"
    return name.format(study.plan.full.name)


def inlined(svg: str, name: str) -> Markup:
    """Returns the end of an `<svg` tag that the template began, and the figure's content after it.

    Args:
        svg: the text of an SVG file.
        name: what all ids of the figure get as a prefix, so that no two figures share one.
    """
    box = re.findall(r'viewBox="([^"]*)"', svg)[0]
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub("<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    return Markup(f'viewBox="{box}">{body}')  # noqa: S704 (drawn by our own stage)
