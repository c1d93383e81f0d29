"""Reads and writes JSON that changes only if a result changes: numbers rounded, keys sorted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from replicate.errors import UserError

DIGITS = 6  # the significant digits of each number that is written


def finite(value: Any) -> Any:
    """Replaces each number that is not finite with None, also in nested lists and mappings."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rounded(value: Any) -> Any:
    """Rounds each float to `DIGITS` significant digits, also in nested lists and mappings."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        cause = f"cannot be read ({type(error).__name__})"
        raise UserError(
            f"{path}: {cause}; delete it and run the stage that writes it again"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Writes a value rounded and with sorted keys, so that equal values give equal bytes.

    Numbers that are not finite become null. An interrupted write does not change the file.
    """
    text = json.dumps(rounded(finite(value)), indent=1, sort_keys=True, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
