"""Defines a published record; writes and reads lists of records, and makes their JSON Schemas.

Results hold only what was run. No file says what was planned and not run: tables and figures
compare the records with the study's plan (`replicate.study.plan`) and say *not run*.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from replicate.data.json_io import write_json
from replicate.errors import UserError

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """One row of a file of results; a field is null only where it is not finite or not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def write(path: Path, records: Sequence[Record]) -> None:
    """Writes a list of records of one kind."""
    write_json(path, [record.model_dump() for record in records])


def read(path: Path, kind: type[R]) -> list[R]:
    """Reads a file with a list of records of one kind.

    Raises:
        UserError: the file is missing, or is not such a list.
    """
    try:
        return parse(path.read_bytes(), kind)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        remedy = "run the stage that writes it again"
        raise UserError(f"{path}: {where}: {first['msg']}; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        cause = f"cannot be read ({type(error).__name__})"
        raise UserError(f"{path}: {cause}; run the stage that writes it again") from None


def parse(text: bytes, kind: type[R]) -> list[R]:
    """Reads the records of one kind from JSON.

    Raises:
        ValueError: the text is not a list of such records, or a number in it is not finite.
    """
    rows: list[R] = TypeAdapter(list[kind]).validate_python(  # pyright: ignore[reportInvalidTypeForm]
        json.loads(text, parse_constant=_refuse)
    )
    return rows


def _refuse(constant: str) -> None:
    """Rejects NaN and Infinity, which Python's reader accepts and JSON does not have."""
    raise ValueError(constant)


def schema(kind: type[Record]) -> dict[str, Any]:
    """Returns the JSON Schema of a list of records."""
    items = kind.model_json_schema()
    nested = {"$defs": items.pop("$defs")} if "$defs" in items else {}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "array"}
    return head | {"items": items} | nested
