"""Reads and writes JSON that changes only if a result changes: numbers rounded, keys sorted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replicate.errors import UserError

AGAIN = "delete it and run the stage that writes it again"
DIGITS = 6  # the number of significant digits of each float that is written


def finite(value: Any) -> Any:
    """Replaces each number that is not finite with None, also in nested lists and mappings."""
    return _each_float(value, lambda number: number if math.isfinite(number) else None)


def rounded(value: Any) -> Any:
    """Rounds each float to `DIGITS` significant digits, also in nested lists and mappings."""
    return _each_float(value, lambda number: float(f"{number:.{DIGITS}g}"))


def _each_float(value: Any, change: Callable[[float], float | None]) -> Any:
    if isinstance(value, dict):
        return {key: _each_float(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_float(item, change) for item in value]
    return change(value) if isinstance(value, float) else value


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        remedy = "run the stage that writes it, or leave the order to `dvc repro`"
        raise UserError(f"{path}: is missing; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, PermissionError):
            raise UserError(f"{path}: may not be read; give read access to it") from None
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); {AGAIN}") from None


def write_json(path: Path, value: Any) -> None:
    """Writes a value rounded and with sorted keys, so that equal values give equal bytes.

    Numbers that are not finite become null. An interrupted write does not change the file.
    """
    text = json.dumps(rounded(finite(value)), indent=1, sort_keys=True, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
