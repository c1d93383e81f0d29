"""Completion for bash, zsh and fish: `replicate` as a short name of `python -m replicate`, and what
may follow it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from replicate.errors import UserError
from replicate.pipeline import git as revisions
from replicate.pipeline.stages import declared

NAME, VARIABLE = "replicate", "_REPLICATE_COMPLETE"
SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}
SHORT = {"fish": "function {name}; {command} $argv; end"}
CALLED = {
    "bash": "$1)",
    "zsh": "%(prog_name)s)}",
    "fish": "%(prog_name)s);",
}  # in click's script, where it runs the program


def script(shell: str, cli: click.Command) -> str:
    """What a shell evaluates. click's script runs a program by its name; here a Python runs a
    module.
    """
    command = f"{shlex.quote(sys.executable)} -m replicate"
    kind = SHELLS[shell]
    called = CALLED[shell].replace("$1", "%(prog_name)s").replace("%(prog_name)s", command)
    lines = kind.source_template.replace(
        "    (( ! $+commands[%(prog_name)s] )) && return 1\n", ""
    ).replace(CALLED[shell], called)
    made = type(kind.__name__, (kind,), {"source_template": lines})(cli, {}, NAME, VARIABLE)
    short = SHORT.get(shell, '{name}() {{ {command} "$@"; }}').format(name=NAME, command=command)
    return f"{short}\n{made.source()}"


def candidates(kind: str) -> list[str]:
    """What stands in params.yaml, dvc.yaml or git; nothing where these cannot be read."""
    found: list[str] = []
    sources: dict[str, Callable[[], list[str]]] = {"revision": revisions.names, "device": devices}
    for each in kind.split(" or "):
        try:
            found += sources[each]() if each in sources else declared.names(each)
        except UserError:
            continue
    return found


def devices() -> list[str]:
    from replicate.pipeline.planning.devices import DEVICES

    return list(DEVICES)
