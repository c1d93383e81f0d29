"""Says in plain words what is wrong with a value that a schema of pydantic refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAID = {  # the kind of pydantic's error → what the value should be, with the limits in its context
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "finite_number": "must be finite",
    "too_short": "needs at least {min_length}, and has {actual_length}",
    "string_too_short": "needs at least {min_length} characters",
    "too_long": "has {actual_length}, and may have at most {max_length}",
    "string_too_long": "may have at most {max_length} characters",
    "int_from_float": "must be a whole number",
    "missing": "is missing",
    "extra_forbidden": "is unknown",
}
KINDS = {  # how the kind of such an error begins → what belongs there
    "float_": "a number",
    "int_": "a whole number",
    "bool_": "true or false",
    "string_": "text",
    "list_": "a list",
    "tuple_": "a list",
    "dict_": "a block of keys",
    "model_": "a block of keys",
}


def mistake(error: Mapping[str, Any]) -> str:
    """Returns what is wrong, as the end of a sentence that begins with the key.

    Args:
        error: one of the errors of a `pydantic.ValidationError`.
    """
    kind, value = error["type"], error["input"]
    if kind in SAID:
        said = SAID[kind].format(**error.get("ctx", {}))
        return said if kind in ("missing", "extra_forbidden") else f"{said}{shown(value)}"
    for start, wanted in KINDS.items():
        if kind.startswith(start) and "pattern" not in kind:
            return f"is {named(value)} where {wanted} belongs"
    said = error["msg"].removeprefix("Value error, ")
    return f"{said[0].lower()}{said[1:]}{shown(value)}"


def shown(value: Any) -> str:
    """Returns a value in brackets; nothing for a list or a block."""
    return "" if isinstance(value, dict | list | tuple) else f" ({written(value)} given)"


def named(value: Any) -> str:
    """Returns a value with its kind, such as `'7' (text)`."""
    if isinstance(value, dict):
        return "a block of keys"
    if isinstance(value, list | tuple):
        return "a list"
    return f"{written(value)} (text)" if isinstance(value, str) else written(value)


def written(value: Any) -> str:
    """Returns a value as YAML and JSON write it; text is in quotes."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)
