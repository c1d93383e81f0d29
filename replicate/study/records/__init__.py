"""Writes and reads the records that are published in results/<study>/*.json, and makes their JSON
Schemas.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from replicate.data.json_io import write_json
from replicate.data.mistakes import mistake
from replicate.errors import UserError
from replicate.study.records.base import Record
from replicate.study.records.experiments import (
    CurvePoint,
    Importance,
    OriginalProtocol,
    Quantised,
    Transferred,
    Trial,
)
from replicate.study.records.models import (
    Baseline,
    Estimate,
    Extraction,
    Metric,
    Provenance,
    Refused,
    ThinnedTrace,
    Training,
)
from replicate.study.records.settings import Setting
from replicate.study.records.verdicts import (
    Aggregate,
    Analysis,
    Calibrated,
    Coverage,
    JudgedClaim,
    NegativeControl,
)

R = TypeVar("R", bound=Record)

COLLECTED: dict[str, type[Record]] = {  # the files that `collect` writes for each study
    "baselines": Baseline,
    "curve": CurvePoint,
    "estimates": Estimate,
    "importances": Importance,
    "original": OriginalProtocol,
    "provenance": Provenance,
    "quantisation": Quantised,
    "refused": Refused,
    "search": Trial,
    "settings": Setting,
    "traces": ThinnedTrace,
    "training": Training,
    "transfer": Transferred,
    "windows": Extraction,
}
FILES: dict[str, type[Record]] = COLLECTED | {
    "aggregates": Aggregate,
    "anova": Analysis,
    "calibration": Calibrated,
    "claims": JudgedClaim,
    "controls": NegativeControl,
    "coverage": Coverage,
}


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
    except (OSError, ValueError, RecursionError) as error:
        remedy = "run the stage that writes it again"
        raise UserError(f"{path}: {explain(error)}; {remedy}") from None


def parse(text: bytes, kind: type[R]) -> list[R]:
    """Reads the records of one kind from JSON.

    Raises:
        ValueError: the text is not a list of such records, or a number in it is not finite; or it
            is empty, and is of a kind that `collect` does not write.
    """
    found = checked(json.loads(text, parse_constant=_refuse, parse_float=_finite), kind)
    if not found and kind not in COLLECTED.values():
        raise ValueError("it has no row")
    return found


def checked(rows: Any, kind: type[R]) -> list[R]:
    """Returns rows that were read from a file as records of one kind.

    Raises:
        ValueError: a row is no such record, has a number that no computation gives, or occurs
            twice; or rows contradict one another.
    """
    one = Annotated[kind, AfterValidator(kind.possible)]
    several: Any = Annotated[list[one], AfterValidator(_distinct)]
    return TypeAdapter(several).validate_json(json.dumps(rows), strict=True)


def _distinct(rows: list[R]) -> list[R]:
    """Refuses two rows with the same identity, such as the same model, and rows that disagree."""
    names = Counter(tuple(getattr(row, field) for field in row.identity) for row in rows)
    twice = next((name for name, count in names.items() if name and count > 1), None)
    if twice is not None:
        raise ValueError(f"the row of {', '.join(map(str, twice))} is there twice")
    for kind in dict.fromkeys(map(type, rows)):
        kind.agree(rows)
    return rows


def _refuse(constant: str) -> NoReturn:
    """Rejects NaN and Infinity, which Python's reader accepts and JSON does not have."""
    raise ValueError(f"{constant} is no number of JSON")


def _finite(number: str) -> float:
    """Reads a number; rejects one that is too large, which Python reads as infinite."""
    return float(number) if math.isfinite(float(number)) else _refuse(number)


def explain(error: Exception) -> str:
    """Says why a file could not be read: its first wrong field, or the name of the error."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {mistake(first)}" if where else mistake(first)
    if type(error) is ValueError:
        return str(error)
    kind = "no such file" if isinstance(error, FileNotFoundError) else type(error).__name__
    return f"cannot be read ({kind})"


def schemas() -> dict[str, dict[str, Any]]:
    """Returns the JSON Schema of every file of results/, by its name; `metrics` is a mapping by
    model, all others are lists.
    """
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    metrics = {"type": "object", "additionalProperties": Metric.model_json_schema()}
    found: dict[str, dict[str, Any]] = {"metrics": dialect | metrics}
    for name, kind in FILES.items():
        items = kind.model_json_schema()
        nested = {"$defs": items.pop("$defs")} if "$defs" in items else {}
        found[name] = {**dialect, "type": "array", "items": items, **nested}
    return found
