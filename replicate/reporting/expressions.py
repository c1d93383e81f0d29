"""Evaluates the Jinja expressions in tables.yaml and values.yaml, which say how results are shown.

The filters in them are the functions of `formatting`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from inspect import isfunction
from math import log
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from jinja2.environment import TemplateExpression

from replicate.reporting import formatting
from replicate.reporting.formatting import DASH, NOT_RUN

FILTERS = {name: each for name, each in vars(formatting).items() if isfunction(each)}
JINJA = Environment(undefined=StrictUndefined)  # noqa: S701 - writes no HTML
JINJA.filters |= FILTERS
JINJA.globals |= {"NOT_RUN": NOT_RUN, "log": log}


def read(name: str) -> dict[str, dict[str, Any]]:
    """Reads a YAML file of the folder replicate/reporting."""
    return yaml.safe_load((files("replicate.reporting") / name).read_text(encoding="utf-8"))


@cache
def compiled(source: str) -> TemplateExpression:
    """Compiles an expression. Evaluating it fails if a name in it is unknown."""
    return JINJA.compile_expression(source, undefined_to_none=False)


def text(source: str, /, **context: Any) -> str:
    """Returns the value of an expression as text, with a dash for None."""
    value = compiled(source)(**context)
    return DASH if value is None else str(value)


def render(template: str, context: dict[str, Any]) -> str:
    """Fills a Jinja template with the names in the context."""
    return JINJA.from_string(template).render(context)
