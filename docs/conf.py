"""How Sphinx builds the documentation (`make docs`): README and docs/, as a forge shows them, and
what docs/generated.py makes from the code.

The source folder is the project's root, so that links between these files are checked.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs import generated  # noqa: E402 - found by the line above

os.environ["PYTHONPATH"] = str(ROOT)  # for the notebook's kernel

project = "Does λ̂ grow with size?"
author = "The replicate authors"
project_copyright = "The replicate authors, MIT licence"
settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
version = release = settings["project"]["version"]
root_doc = "docs/index"
include_patterns = ["README.md", "docs/**.md", "docs/**.ipynb"]
exclude_patterns = [".*", "data", "logs", "tmp", "paper", "results", "docs/_build"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds for one cell
myst_heading_anchors = 3  # as a forge has them
myst_fence_as_directive = ["mermaid"]
suppress_warnings = [
    "ref.python",  # a record and what it is made of may have the same name
]
napoleon_use_ivar = True  # attributes are listed once

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
ALIASES = "Advance Anchor Array Choice Interval Loss Masks Noise Order Verdict".split()
autodoc_type_aliases = {name: name for name in ALIASES}
# No other project's index of names is at hand, so only this project's names are links.
nitpick_ignore_regex = [("py:.*", r"(?!replicate\.).*"), ("py:class", r".*\.[A-Z]")]

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_extra_path = ["_root"]
html_show_sourcelink = html_copy_source = False
html_last_updated_fmt = None
pygments_style, pygments_dark_style = "friendly", "monokai"


SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")


class Mermaid(Directive):
    """Shows the diagram that docs/pipeline.py drew, where a forge draws it from its text."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        drawn = (ROOT / "docs" / "pipeline.svg").read_text(encoding="utf-8")
        return [nodes.raw("", drawn, format="html")]


def written(app: Sphinx, config: object) -> None:
    """Writes the pages of the API before Sphinx looks for pages."""
    generated.write_pages()


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Fills a page's generated parts. Of a link to a folder, which a forge can show and a book
    cannot, it leaves the text alone.
    """
    here = ROOT / Path(page).parent
    source[0] = re.sub(
        r"\[([^]]+)\]\(([^)#:]+)\)",
        lambda link: link[1] if (here / link[2]).is_dir() else link[0],
        generated.fill(source[0]),
    )


def plain(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Makes reStructuredText of a docstring, which is plain text.

    Indented blocks stay as they are, names in two columns become a list, `names` are code.
    """
    out: list[str] = []
    for block in filter(str.strip, re.split(r"\n\s*\n", "\n".join(lines))):
        head, _, rest = block.partition("\n")
        if head in SECTIONS:
            out += [head, *quoted(rest).split("\n")]
        elif re.match(r"[`*][\w ]+[`*] {2,}", block):
            for entry in re.split(r"\n(?=[`*])", block):
                term, said = re.split(r" {2,}", " ".join(entry.split("\n")), maxsplit=1)
                term = term if term.startswith("*") else quoted(term)
                out += [term, f"    {quoted(' '.join(said.split()))}"]
        elif any(line.startswith("  ") for line in block.split("\n")):
            out += ["::", "", *(f"    {line}" for line in block.split("\n"))]
        else:
            out += quoted(block).split("\n")
        out.append("")
    lines[:] = out


def quoted(text: str) -> str:
    """Returns plain text as reStructuredText."""
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
    """Restores the names of types that autodoc wraps or spells out."""
    shape, kind = r"tuple\[(?:~typing\.)?Any, \.\.\.\]", r"(?:~numpy\.)?dtype\[((?:~numpy\.)?\w+)\]"
    array = rf"(?:~numpy\.)?ndarray\[{shape}, {kind}\]"
    words = ((r"~?TypeAliasForwardRef\('(\w+)'\)", r"\1"), (array, r"NDArray[\1]"))
    for pattern, word in words:
        given, returned = (text and re.sub(pattern, word, text) for text in (given, returned))
    return given, returned


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Mermaid)
    app.connect("config-inited", written)
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", signature)
