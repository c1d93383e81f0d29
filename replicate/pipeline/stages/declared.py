"""The stages that dvc.yaml declares, and the names in params.yaml that they are declared for: read
as they are written, within milliseconds, for what lists them. Nothing is checked here but what
listing needs; replicate/pipeline/config.py and DVC do that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from replicate.errors import UserError

PARAMS, DVC = Path("params.yaml"), Path("dvc.yaml")
SECTIONS = {"family": "families", "model": "models", "study": "studies"}
# blocks within blocks: libyaml, which is ten times as fast as Python, ends the process when they
# are thousands
DEEPEST = 50
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Stage:
    """`command`, `argument`: what its command line runs, as the run log has it. `studies`: those
    that it is for.
    """

    name: str
    kind: str
    key: str | None
    command: str
    argument: str | None
    outs: tuple[str, ...]
    studies: tuple[str, ...]


@cache
def read(path: Path) -> dict[str, Any]:
    """Raises:
    UserError: there is no such file, or it is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if depth > DEEPEST:
                raise ValueError(path)
        found = LOADER(text).get_single_data()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this from the project's root") from None
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise malformed(path)
    return found


def malformed(path: Path) -> UserError:
    """What replicate/pipeline/config.py says of the file, which takes half a second to load."""
    if path == PARAMS:
        from replicate.pipeline.config import load

        try:
            load(path)
        except UserError as error:
            return error
    return UserError(
        f"{path}: cannot be read as a list of stages or of parameters; take it from git again"
    )


def section(name: str) -> dict[str, dict[str, Any]]:
    """Raises:
    UserError: params.yaml has no such section of blocks.
    """
    found = read(PARAMS).get(name)
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(block, dict) for key, block in found.items()
    ):
        raise malformed(PARAMS)
    return found


def names(kind: str) -> list[str]:
    """Of families, models or studies, or of stages."""
    return [stage.name for stage in stages()] if kind == "stage" else list(section(SECTIONS[kind]))


def stages() -> list[Stage]:
    """In the order of dvc.yaml, each for every name that it is declared for.

    Raises:
        UserError: a file is missing or malformed.
    """
    declared = read(DVC).get("stages")
    if not isinstance(declared, dict):
        raise malformed(DVC)
    try:
        return [stage for kind, body in declared.items() for stage in filled(kind, body)]
    except (LookupError, TypeError, AttributeError):
        read(PARAMS)
        raise malformed(PARAMS) from None


def filled(kind: str, body: Mapping[str, Any]) -> Iterator[Stage]:
    """A stage, or one for each name of the section of params.yaml that its `foreach` names, as DVC
    fills it in.
    """
    if "foreach" not in body:
        yield made(kind, kind, None, body, {})
        return
    for key, item in section(body["foreach"].strip("${}")).items():
        yield made(kind, f"{kind}@{key}", key, body["do"], {"key": key, "item": item})


def made(
    kind: str, name: str, key: str | None, body: Mapping[str, Any], context: Mapping[str, Any]
) -> Stage:
    words = fill(body["cmd"], context).split()[3:]  # without python -m replicate
    argument = (
        words[1]
        if len(words) > 1 and any(words[1] in section(each) for each in SECTIONS.values())
        else None
    )
    listed = [*body.get("outs", ()), *body.get("metrics", ())]
    outs = tuple(fill(out if isinstance(out, str) else next(iter(out)), context) for out in listed)
    return Stage(
        name,
        kind,
        key,
        words[0],
        argument,
        outs,
        tuple(study for study in section("studies") if concerns(argument, study)),
    )


def concerns(argument: str | None, study: str) -> bool:
    """Whether a command on a family, a model, or a study is for this study; one on none of them is
    for all.
    """
    block = section("studies")[study]
    model = section("models").get(argument or "", {})
    return argument in (None, study, block["full"], block["quantised"]) or model.get("family") in (
        block["full"],
        block["quantised"],
    )


def fill(text: str, context: Mapping[str, Any]) -> str:
    """`${key}` and `${item.family}` in it, as DVC fills them in."""

    def value(found: re.Match[str]) -> str:
        at: Any = context
        for part in found[1].split("."):
            at = at[part]
        return str(at)

    return re.sub(r"\$\{([\w.-]+)\}", value, text)
