"""Reads params.yaml. An unknown, missing or mistyped key is reported in one line with a remedy."""

from __future__ import annotations

import difflib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from replicate.data.mistakes import mistake
from replicate.errors import UserError
from replicate.pipeline.config.schema import Config
from replicate.pipeline.config.values import PATTERNS

PARAMS = Path("params.yaml")
INNER = re.compile(r"\[key\]|literal\[|constrained-|function-|nullable|tuple\[")  # not a key
AMBIGUOUS = re.compile(  # octal, binary, base 60 such as 1:30, digits with _, and yes and no
    r"[-+]?(0o?\d[\d_]*|0b[01_]+|\d[\d_]*(:[0-5]?\d)+(\.\d*)?|\d*_[\d_.]*)|(?i:yes|no|on|off)"
)
TAGS = {"checkpoints", "generated", "hub", "local", "sampled", "single-epoch", "trained"}


class UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that reads 1e-06 as a number, as DVC does, and refuses duplicate keys.

    It also refuses what DVC, which reads YAML 1.2, would read as another value.
    """

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.style is None and AMBIGUOUS.fullmatch(node.value):
            said = f"{node.value} is one value to YAML 1.1 and another to YAML 1.2"
            remedy = "write a decimal number, true or false, or text in quotes"
            raise UserError(f"line {node.start_mark.line + 1}: {said}; {remedy}")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            line, written = key.start_mark.line + 1, key.value
            if key.tag.rpartition(":")[2] not in ("int", "merge", "str"):
                said = f"the key {written} is neither text nor a whole number"
                raise UserError(f"line {line}: {said}; correct it or remove it")
            read = written if key.tag.endswith("merge") else str(self.construct_object(key))
            if read in seen:
                raise UserError(f"line {line}: the key {written!r} stands twice; remove one")
            seen.add(read)
        return node


UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load(path: Path = PARAMS) -> Config:
    """Reads the parameters in `path`.

    Raises:
        UserError: the file cannot be read or is not YAML; a key is unknown, missing or of the wrong
            type; a name refers to nothing; or two settings contradict each other.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this from the project's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}; correct it") from None
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except RecursionError:
        raise UserError(f"{path}: a block holds itself; take the file from git again") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make it a file that can be read") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def parse(text: str) -> Config:
    """Reads parameters from a YAML text.

    Raises:
        yaml.YAMLError: the text is not YAML.
        ValidationError: a key is unknown, missing or of the wrong type.
        UserError: a key occurs twice, a name refers to nothing, or two settings contradict each
            other.
    """
    return build(yaml.load(text, UniqueKeyLoader))  # noqa: S506 - a safe loader


def build(data: Any) -> Config:
    """Validates parameters that were read from YAML into plain values.

    Raises:
        ValidationError: a key is unknown, missing or of the wrong type.
        UserError: a name refers to nothing, or two settings contradict each other.
    """
    try:
        text = json.dumps(data, default=str)
    except ValueError:  # the message of json speaks of a circular reference
        raise UserError("a block holds itself; take the file from git again") from None
    return Config.model_validate_json(text)


def explain(error: ValidationError) -> str:
    """Returns one validation error as `key: what is wrong; remedy`.

    It is the first unknown key if there is one, otherwise the first error.
    """
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), None)
    first = first or next((each for each in errors if each["type"] == "value_error"), errors[0])
    where = [
        part
        for i, part in enumerate(first["loc"])
        if not (part in TAGS and i in (2, 4)) and not INNER.match(str(part))
    ]
    key, value, kind = ".".join(map(str, where)) or "the file", first["input"], first["type"]
    match kind:
        case "extra_forbidden":
            schema = Config.model_json_schema()
            blocks = (schema, *schema["$defs"].values())
            known = {name for block in blocks for name in block.get("properties", ())}
            near = difflib.get_close_matches(str(where[-1]), known - {where[-1]}, 1)
            return f"{key}: unknown key; remove it" + (f" or write {near[0]}" if near else "")
        case "missing":
            return f"{key}: missing; add it"
        case "float_type" | "int_type" if isinstance(value, str):
            remedy = "write it without quotes" if _is_number(value) else "write a number"
            return f"{key}: {value!r} is text where a number belongs; {remedy}"
        case "union_tag_not_found" | "union_tag_invalid":
            tags = first.get("ctx", {}).get("expected_tags", ", ".join(sorted(TAGS)))
            return f"{key}.source: write one of {tags}"
        case "string_pattern_mismatch":
            pattern = first.get("ctx", {})["pattern"]
            wanted = next(words for words, each in PATTERNS.items() if each == pattern)
            return f"{key}: must be {wanted} ({value!r} given); correct it"
        case _:
            return f"{key}: {mistake(first)}; correct it"


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False
