"""params.yaml as a whole, before DVC puts a name of it into a path or a command: the stages that it
does so for depend on this one.
"""

from __future__ import annotations

from pathlib import Path

from dvc.utils.serialize import load_yaml

from replicate.errors import UserError
from replicate.pipeline.config import Params, build


def run(params: Params, out: Path | None) -> None:
    """Leaves a file at `out` that is always the same.

    Raises:
        UserError: DVC, whose reader of YAML is another, sees other parameters.
    """
    try:
        same = build(load_yaml("params.yaml")) == params
    except Exception:  # whatever it finds there, it is not what was read here
        same = False
    if not same:
        raise UserError(
            "params.yaml: DVC reads it otherwise; write names in small letters, numbers in digits, and text that is like one in quotes"
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("params.yaml is well-formed\n")
