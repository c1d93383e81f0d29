"""Whether this machine can do the work: what it has, what it lacks with the remedy, and which
targets can be made here now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from replicate.pipeline.config import Params
from replicate.pipeline.stages import checks
from replicate.pipeline.stages.checks import Check
from replicate.reporting import terminal
from replicate.reporting.terminal import Cell, Column, Table

ALWAYS = "demo"  # the study whose lack is a failure, where there is one of that name


def run(params: Params, locks: Path, as_json: bool) -> bool:
    """Prints every check. Whether the demo can run."""
    with terminal.waiting("doctor: looking around, and asking the hub"):
        found = list(examined(params, locks))
    verdicts = {target: lacking(target, found) for target in (*params.studies, "pdf")}
    if as_json:
        listed = [asdict(check) | {"ok": check.ok} for check in found]
        terminal.dump({"checks": listed, "lacking": verdicts})
    else:
        show(found)
        said = (
            f"{target}: {'yes' if not names else 'no, because of ' + ', '.join(names)}"
            for target, names in verdicts.items()
        )
        terminal.say("; ".join(said), "bold")
    must = [ALWAYS] if ALWAYS in params.studies else list(params.studies)
    return not any(verdicts[target] for target in must)


def examined(params: Params, locks: Path) -> Iterator[Check]:
    studies = list(params.studies)
    graphic = [
        name
        for name, study in params.studies.items()
        if any(params.families[family].device == "cuda" for family in study.families)
    ]
    yield checks.python(studies)
    yield checks.packages(locks, studies)
    yield checks.processor()
    yield checks.memory(params.machine.processes, studies)
    yield checks.graphics(graphic)
    yield checks.room("work folder", Path("data"), studies)
    yield checks.repository(studies)
    yield from checks.dvc(studies)
    try:
        from replicate.pipeline.stages import access

        yield from access.access(params)
    except ImportError as error:  # a machine that lacks packages is examined all the same
        yield Check("hub", f"cannot be asked without {error.name}", "make setup", tuple(studies))
    yield checks.latex()


def lacking(target: str, found: Sequence[Check]) -> list[str]:
    """The checks that stand in a target's way, each name once."""
    return list(
        dict.fromkeys(check.name for check in found if not check.ok and target in check.needs)
    )


def show(found: Sequence[Check]) -> None:
    if not terminal.seen():  # one line a check
        for check in found:
            head = f"{'ok' if check.ok else 'lack':<5} {check.name:<12} {check.found}"
            print(head if check.ok else f"{head}; {check.remedy}{needed(check)}")
        return
    table = Table("", [Column(""), Column("check"), Column("found", least=30)])
    for check in found:
        mark = (
            Cell("ok", "green")
            if check.ok
            else Cell("lack", "bold red" if ALWAYS in check.needs else "yellow")
        )
        told = check.found if check.ok else f"{check.found}\n→ {check.remedy}{needed(check)}"
        table.rows.append([mark, check.name, told])
    terminal.show(table)


def needed(check: Check) -> str:
    return f" (for {', '.join(check.needs)})" if check.needs else " (nothing stops without)"
