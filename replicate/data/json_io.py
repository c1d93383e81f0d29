"""JSON that changes only when a result does: rounded, sorted, without timestamps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from replicate.errors import UserError

DIGITS = 6  # significant ones in every published number


def rounded(value: Any) -> Any:
    """The same with every float cut to `DIGITS` significant digits and what is not finite turned
    into null.
    """
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}); delete it and run dvc repro again"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Rounded, with sorted keys: the same value gives the same bytes. The file is there as a whole
    or not at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(
        json.dumps(rounded(value), indent=1, sort_keys=True, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    partial.replace(path)
