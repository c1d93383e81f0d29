"""Makes what the build takes from the code: pages of the API, tables of commands, of params.yaml
and of results, and the figures of each study. docs/conf.py calls it; nothing of it is in git.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from docs.results import markdown
from replicate.pipeline import config as parameters
from replicate.pipeline.cli import BY_MODEL, NAME, STAGES, main
from replicate.pipeline.config.values import NAME as NAMED
from replicate.pipeline.config.values import PATTERNS
from replicate.pipeline.stages import read
from replicate.reporting.results import Study
from replicate.study import published, records

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "docs" / "reference"
DRAWN = ("control", "demo")  # the studies that have run
PUBLIC = ("estimating", "api", "choosing", "automatic", "models.curvature", "estimation.estimate")
ROOMS = {
    "estimation": "From traces to λ̂, its errors, and whether to believe them.",
    "sampling": "A sampler is one equation; `engine` runs shuffles × chains.",
    "data": "Reviews, tokens, windows; tensors and traces on disk.",
    "models": "Weights, the label's loss, what moves.",
    "search": "Sampler settings, and which of their parameters matters.",
    "validation": "Models whose λ is known.",
    "study": "What is published, and the claims of the write-up as tests with verdicts.",
}
PLAIN = re.compile(r"(?<=\b[wW])\*(?!\*)|(?<=[_\s])_(?=\W)")  # marks that Markdown would take
FIGURES = {  # figure → what it shows
    "sizes": "λ̂ of each training against the number of parameters, a panel for each setting",
    "checkpoints": "λ̂ and the loss over training",
    "llc": "λ̂ against size by the loss of the last token, beside the published figures",
    "original": "The published λ̂ by shuffle, and the protocol of 2023 on the models of this study",
    "curve": "λ̂ against the resolution α = γ/nβ; dashed, the harmonic part",
    "transfer": "λ̂ at other step sizes than the chosen one",
    "quantisation": "Loss at w* and λ̂ in other weight formats",
    "search": "The trials of the search for a sampler's settings",
}


def api() -> dict[str, str]:
    """Returns the pages of the API by their names."""
    pages = {
        "public": f"# λ̂ of any model\n\nWhat `from replicate import …` offers.\n{every(PUBLIC)}"
    }
    for room, said in ROOMS.items():
        folder = ROOT / "replicate" / room
        files = sorted(folder.rglob("*.py"), key=lambda file: (len(file.parts), file))
        paths = (file.relative_to(ROOT / "replicate").with_suffix("") for file in files)
        names = (".".join(path.parts).removesuffix(".__init__") for path in paths)
        listed = [name for name in names if name not in (room, *PUBLIC)]
        pages[room] = f"# {room}\n\n{said}\n{every(listed)}"
    return pages


def every(modules: Iterable[str]) -> str:
    """Returns a section for each module, which Sphinx fills from its docstrings."""
    only = {"api": "\n   :members: sample, sample_text, baseline, calibrate"}
    directives = (
        (name, f".. automodule:: replicate.{name}{only.get(name, '')}") for name in modules
    )
    return "".join(f"\n## {name}\n\n```{{eval-rst}}\n{said}\n```\n" for name, said in directives)


def commands() -> str:
    """Returns a table of the stages, and each other command with its options."""
    rows = [["command", "what it does", "options"]]
    for name, (kind, said) in STAGES.items():
        given = f"`{name} {kind.upper()}`" if kind else f"`{name}`"
        rows.append([given, cell(said), "`--only`, `--scheduler`" if name in BY_MODEL else ""])
    out = ["## Stages", markdown(iter(rows))]
    for name, command in sorted(main.commands.items()):
        if name not in STAGES:
            context = click.Context(command, info_name=f"{NAME} {name}")
            out += [f"## {name}", f"    {command.get_usage(context).removeprefix('Usage: ')}"]
            out.append(escaped(inspect.cleandoc(command.help or "")))
            given = (each for each in command.params if isinstance(each, click.Option))
            told = (option.get_help_record(context) or ("", "") for option in given)
            options = [[f"`{option}`", cell(said)] for option, said in told]
            if options:
                out.append(markdown(iter([["option", ""], *options])))
    return "\n\n".join(out)


def params() -> str:
    """Returns a table for each block of params.yaml, from its schema."""
    schema = parameters.Config.model_json_schema()
    blocks = {"Everything": schema} | {
        name: schema["$defs"][name] for name in referred(schema, schema["$defs"])
    }
    return "\n\n".join(f"### {name}\n\n{block(each)}" for name, each in blocks.items())


def referred(schema: Any, known: Mapping[str, Any], seen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Returns the names of the blocks that a schema refers to, in their order."""
    for name in re.findall(r"#/\$defs/(\w+)'", str({**schema, "$defs": None})):
        if name not in seen:
            seen = referred(known[name], known, (*seen, name))
    return seen


def block(schema: Mapping[str, Any]) -> str:
    """Returns the sentences and the keys of one block."""
    said, _, listed = schema.get("description", "").partition("Attributes:")
    told = {
        name.strip(): " ".join(text.split())
        for names, text in re.findall(r"(?ms)^    ([\w, ]+): (.*?)(?=^    \w|\Z)", listed)
        for name in names.split(",")
    }
    rows = [["key", "value", "if left out", ""]]
    needed = schema.get("required", ())
    for name, each in schema["properties"].items():
        default = "" if name in needed else f"`{written(each.get('default'))}`"
        default = "its own defaults" if "{" in default else default
        rows.append([f"`{name}`", value(each), default, cell(told.get(name, ""))])
    return f"{escaped(said.strip())}\n\n{markdown(iter(rows))}"


def files() -> str:
    """Returns a table for each file of results/, from its schema."""
    out = []
    for name, schema in records.schemas().items():
        record = schema.get("items") or schema["additionalProperties"]
        parts = {f"{name}.json": record} | schema.get("$defs", {})
        for title, part in parts.items():
            if part is record or f"### {title}" not in out:
                rows = [["field", "value", ""]]
                rows += [
                    [f"`{key}`", value(each), cell(each.get("description", ""))]
                    for key, each in part["properties"].items()
                ]
                said = escaped(part.get("description", ""))
                out += [f"### {title}", said, markdown(iter(rows))]
    return "\n\n".join(out)


def value(schema: Mapping[str, Any]) -> str:
    """Says in words what a value may be."""
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        return " or ".join(dict.fromkeys(map(value, several)))
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        return f"[{name}](#{name.lower()})"
    for kind in ("const", "enum"):
        if kind in schema:
            found = schema[kind] if kind == "enum" else [schema[kind]]
            return " or ".join(f"`{each}`" for each in found)
    kind = schema.get("type", "anything")
    if kind == "array":
        if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])} values"
        return f"list of {value(schema.get('items', {}))}"
    if kind == "object":
        inner = schema.get("additionalProperties") or schema["patternProperties"][NAMED]
        return f"by name: {value(inner)}"
    if kind == "string":
        pattern = schema.get("pattern")
        return next((said for said, each in PATTERNS.items() if each == pattern), "text")
    word = {"null": "`null`", "boolean": "`true` or `false`"}.get(kind, kind)
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema and abs(schema[key]) < 10**9
    ]
    return f"{word} {', '.join(bounds)}".strip()


def written(default: object) -> str:
    """Returns a value as params.yaml writes it."""
    return default if isinstance(default, str) else json.dumps(default)


def escaped(text: str) -> str:
    """Returns plain text as Markdown."""
    return PLAIN.sub(r"\\\g<0>", text)


def cell(text: str) -> str:
    """Returns plain text as Markdown that fits into a cell of a table."""
    return escaped(" ".join(text.split())).replace("|", "\\|")


def studies() -> str:
    """Returns the verdicts of each study with the reasons, and draws its figures."""
    config = parameters.load(ROOT / "params.yaml")
    figures = published.read(ROOT / "data" / "published.yaml")
    out = []
    for name in ("published", *config.studies):
        folder = ROOT / "results" / name
        rows = [["", "verdict", "why"]]
        judged = records.read(folder / "claims.json", records.JudgedClaim)
        rows += [[row.id, row.verdict, cell(row.why)] for row in judged]
        out += [f"### {name}", markdown(iter(rows))]
        if name in DRAWN:
            study = Study.read(config.plan(name), folder)
            out += [*drawn(study, read.drawings(study, figures, config.rules))]
    return "\n\n".join(out)


def drawn(study: Study, drawings: Mapping[str, Any]) -> Iterator[str]:
    """Draws the figures of a study into the folder of the reference, and yields their Markdown."""
    for name, drawing in drawings.items():
        kind = name.split("-")[0]
        if kind in FIGURES:
            place = HERE / "figures" / study.name / name
            read.draw(drawing, place, ("svg",))
            yield f"![{FIGURES[kind]}](figures/{study.name}/{name}.svg)"
            yield f"{escaped(FIGURES[kind])}."


PARTS = {"commands": commands, "params": params, "files": files, "studies": studies}


def write_pages() -> None:
    """Writes the pages of the API, those alone that changed."""
    for name, text in api().items():
        file = HERE / "api" / f"{name}.md"
        file.parent.mkdir(exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def fill(text: str) -> str:
    """Returns a page with the parts that its lines `<!-- build: NAME -->` name."""
    return re.sub(r"<!-- build: (\w+) -->", lambda found: PARTS[found[1]](), text)
