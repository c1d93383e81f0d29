"""How Sphinx builds the documentation: README, CONTRIBUTING, CHANGELOG and docs/, as they stand on
a forge, and the API from docstrings.

The source folder is the project's root, so that a link between two of these files is checked as one
within the book; `make docs` builds.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "Does λ̂ grow with size?"
author = "The replicate authors"
project_copyright = "The replicate authors, MIT licence"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "version"
]
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [".*", "data", "logs", "tmp", "paper", "results", "docs/_build"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 3  # as a forge has them
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.header"]  # a page of a decision, or of modules, may begin deeper

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "member-order": "bysource",
    "exclude-members": "model_config, __init__",
}
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name
    for name in (
        "Advance",
        "Anchor",
        "Array",
        "Chains",
        "Interval",
        "Loss",
        "Masks",
        "Read",
        "Rest",
        "Verdict",
    )
}
# No other project's index of names is at hand: what is not this project's own is no link.
nitpick_ignore_regex = [("py:.*", r"(?!replicate\.).*")]
nitpick_ignore = [("py:class", "replicate.results.R")]  # a type variable

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_extra_path = ["_root"]
html_show_sourcelink = html_copy_source = False
html_last_updated_fmt = None
pygments_style, pygments_dark_style = "friendly", "monokai"


class Mermaid(Directive):
    """The one diagram, which a forge draws from the text in its fence; here it is drawn already
    (docs/pipeline.py).
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        return [
            nodes.raw(
                "", (ROOT / "docs" / "pipeline.svg").read_text(encoding="utf-8"), format="html"
            )
        ]


def folders(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a folder leads somewhere on a forge, and nowhere in a book: its text alone is
    left.
    """
    here = ROOT / Path(page).parent
    source[0] = re.sub(
        r"\[([^]]+)\]\(([^)#:]+)\)",
        lambda link: link[1] if (here / link[2]).is_dir() else link[0],
        source[0],
    )


def plain(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Docstrings are plain text: what is set in stays as it is, names in columns are a list,
    `names` are code, and a star is a star.
    """
    out: list[str] = []
    for block in filter(str.strip, re.split(r"\n\s*\n", "\n".join(lines))):
        head, _, rest = block.partition("\n")
        if head in ("Raises:", "Returns:", "Args:"):
            out += [head, *quoted(rest).split("\n")]
        elif re.match(r"[`*][\w ]+[`*] {2,}", block):
            for entry in re.split(r"\n(?=[`*])", block):
                term, said = re.split(r" {2,}", " ".join(entry.split("\n")), maxsplit=1)
                out += [
                    term if term.startswith("*") else quoted(term),
                    f"    {quoted(' '.join(said.split()))}",
                ]
        elif any(line.startswith("  ") for line in block.split("\n")):
            out += ["::", "", *(f"    {line}" for line in block.split("\n"))]
        else:
            out += quoted(block).split("\n")
        out.append("")
    lines[:] = out


def quoted(text: str) -> str:
    """Plain text as reStructuredText."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        f"`{part}`" if part.startswith("`") else re.sub(r"[*|\\]|_(?=\W|$)", r"\\\g<0>", part)
        for part in parts
    )


def signature(
    app: Sphinx,
    what: str,
    name: str,
    thing: object,
    options: object,
    given: str | None,
    returned: str | None,
) -> tuple:
    """Names of types as they stand in the code, where autodoc wraps them or spells them out."""
    array = r"(?:~numpy\.)?ndarray\[tuple\[(?:~typing\.)?Any, \.\.\.\], (?:~numpy\.)?dtype\[((?:~numpy\.)?\w+)\]\]"
    words = ((r"~?TypeAliasForwardRef\('(\w+)'\)", r"\1"), (array, r"NDArray[\1]"))
    for pattern, word in words:
        given, returned = (text and re.sub(pattern, word, text) for text in (given, returned))
    return given, returned


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", folders)
    app.connect(
        "autodoc-process-docstring", plain, priority=400
    )  # before napoleon reads the sections
    app.connect("autodoc-process-signature", signature)
