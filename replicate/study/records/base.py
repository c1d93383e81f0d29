"""Defines a published record, and a record of one model.

Results hold only what was run. No file says what was planned and not run: tables and figures
compare the records with the study's plan (`replicate.study.plan`) and say *not run*.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """One row of a file of results; a field is null only where it is not finite or not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelRecord(Record):
    """A record of one model of a family."""

    family: str
    model: str
