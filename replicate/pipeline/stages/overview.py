"""What stands here: every stage in the order of the pipeline, whether its outputs are there, when
it last ran, and what to type next.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from replicate.pipeline.stages import declared
from replicate.pipeline.stages.declared import Stage
from replicate.reporting import terminal
from replicate.reporting.terminal import Cell, Column, Table, spell

LOG, LOCK, RESULTS = Path("logs/runs.jsonl"), Path("dvc.lock"), Path("results")
State = Literal["there", "in part", "no result", "failed", "interrupted", "not here", "not run"]
MARKS = {"there": "✓"}
BROKEN = {"failed": "bold red", "interrupted": "yellow", "in part": "yellow"}
STYLES = BROKEN | {"there": "green", "no result": "dim", "not here": "dim", "not run": "dim"}
LEGEND = {
    "not here": "was run elsewhere, as dvc.lock has it; its outputs are not on this disk",
    "no result": "says *not run* throughout",
}
FIRST = "demo"  # the study to begin with, where there is one of that name
REST = "other"  # what is of no study


@dataclass(frozen=True)
class Run:
    """A line of the run log."""

    ended: str
    started: str
    seconds: float
    device: str | None


@dataclass(frozen=True)
class Standing:
    """A stage as it stands: *there* with all of its outputs, *in part* with some; *no result* where
    these say *not run* throughout; *not here* where dvc.lock has it as run and its outputs are
    elsewhere, as in a fresh clone.
    """

    stage: Stage
    state: State
    outs: dict[str, bool]
    last: Run | None


@dataclass(frozen=True)
class Next:
    command: str
    why: str


def run(as_json: bool) -> None:
    """Prints it."""
    found = standings(declared.stages())
    hints = following(found)
    if as_json:
        terminal.dump(
            {"stages": [told(each) for each in found], "next": [asdict(hint) for hint in hints]}
        )
        return
    terminal.show(collapsed(found) if terminal.seen() else listed(found))
    for word in LEGEND:
        if any(each.state == word for each in found):
            terminal.say(f"{word}: {LEGEND[word]}", "dim")
    wide = max(len(hint.command) for hint in hints)
    for i, hint in enumerate(hints):
        terminal.say(f"{'next:' if i == 0 else '':<5} {hint.command:<{wide}}  {hint.why}")


def standings(stages: Sequence[Stage]) -> list[Standing]:
    runs, recorded = last_runs(stages), locked()
    found = []
    for stage in stages:
        outs, last = (
            {out: Path(out).exists() for out in stage.outs},
            runs.get((stage.command, stage.argument)),
        )
        found.append(Standing(stage, state(stage, outs, last, stage.name in recorded), outs, last))
    return found


def state(stage: Stage, outs: dict[str, bool], last: Run | None, recorded: bool) -> State:
    if outs and all(outs.values()):
        return "no result" if stage.key in declared.section("studies") and empty(stage) else "there"
    if any(outs.values()):
        return "in part"
    if last is not None and last.ended != "done":
        return "interrupted" if last.ended == "interrupted" else "failed"
    if last is not None and not outs:
        return "there"
    return "not here" if recorded else "not run"


def empty(stage: Stage) -> bool:
    """Whether a study's collected files, and what is made of them, hold no λ̂: they are in git
    before anything has run.
    """
    if any(out.startswith("data/") for out in stage.outs):
        return False
    try:
        found = json.loads((RESULTS / str(stage.key) / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return not found


def locked() -> set[str]:
    """The stages that dvc.lock has as run, here or elsewhere; it is a hundred kilobytes, of which
    these lines are all that is needed.
    """
    text = LOCK.read_text(encoding="utf-8", errors="replace") if LOCK.is_file() else ""
    return set(re.findall(r"^  (\S+):$", text, re.MULTILINE))


def last_runs(stages: Iterable[Stage]) -> dict[tuple[str, str | None], Run]:
    """The last line of each in the run log; what is no line of it is passed over."""
    try:
        lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    wanted = {(stage.command, stage.argument) for stage in stages}
    found: dict[tuple[str, str | None], Run] = {}
    for line in reversed(lines):
        if len(found) == len(wanted):
            break
        try:
            noted: dict[str, Any] = json.loads(line)
            key = noted["stage"], noted["argument"]
            run = Run(
                str(noted["ended"]), str(noted["started"]), float(noted["seconds"]), noted["device"]
            )
            datetime.fromisoformat(run.started)
            if key in wanted:
                found.setdefault(key, run)
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return found


def told(found: Standing) -> dict[str, Any]:
    """For programs."""
    outputs = [{"path": path, "there": there} for path, there in found.outs.items()]
    return {
        "stage": found.stage.name,
        "studies": found.stage.studies,
        "state": found.state,
        "outputs": outputs,
        "last_run": None if found.last is None else asdict(found.last),
    }


# For people


def listed(found: Sequence[Standing]) -> Table:
    """A line a stage."""
    table = Table(
        "",
        [Column(name) for name in ("stage", "state", "last run", "seconds", "device", "outputs")],
    )
    for each in found:
        last = each.last
        ran = (
            ("", "", "")
            if last is None
            else (last.started, f"{last.seconds:.1f}", last.device or "")
        )
        table.rows.append([each.stage.name, each.state, *ran, common(each.outs)])
    return table


def common(outs: Iterable[str]) -> str:
    """An output, or the folder that several stand in."""
    paths = list(outs)
    return (
        paths[0]
        if len(paths) == 1
        else f"{Path(paths[0]).parent}/ ({len(paths)} files)"
        if paths
        else ""
    )


def collapsed(found: Sequence[Standing]) -> Table:
    """A line a kind of stage, a column a study."""
    studies = [
        *declared.section("studies"),
        *([REST] if any(not each.stage.studies for each in found) else []),
    ]
    columns = [
        Column("stage"),
        *(Column(study, least=12) for study in studies),
        Column("last run", right=True),
    ]
    columns += [Column("took", right=True), Column("device", rank=1), Column("outputs", rank=2)]
    table = Table("Stages in the order of the pipeline", columns)
    for kind in dict.fromkeys(each.stage.kind for each in found):
        mine = [each for each in found if each.stage.kind == kind]
        cells = [
            summed([each for each in mine if study in (each.stage.studies or (REST,))])
            for study in studies
        ]
        runs = [each.last for each in mine if each.last is not None]
        when = (
            f"{datetime.fromisoformat(max(run.started for run in runs)).astimezone():%Y-%m-%d %H:%M}"
            if runs
            else ""
        )
        took = spell(sum(run.seconds for run in runs)) if runs else ""
        devices = ", ".join(dict.fromkeys(run.device for run in runs if run.device))
        table.rows.append(
            [kind, *cells, when, took, devices, pattern([common(each.outs) for each in mine])]
        )
    return table


def summed(found: Sequence[Standing]) -> Cell:
    """The states of the stages of one kind in one study: how many are there, and what is wrong with
    which.
    """
    count = Counter(each.state for each in found)
    if not found:
        return Cell("")
    if len(count) == 1:
        (only,) = count
        names = f" {len(found)}" if len(found) > 1 and only == "there" else ""
        return Cell(f"{MARKS.get(only, only)}{names}", STYLES[only])
    parts = [f"✓ {count['there']} of {len(found)}"] if count["there"] else []
    for what in (*BROKEN, "not here", "not run"):
        names = [each.stage.key or each.stage.kind for each in found if each.state == what]
        if names:
            parts.append(
                f"{what}: {', '.join(names) if what in BROKEN or len(names) == 1 else len(names)}"
            )
    return Cell("; ".join(parts), next((STYLES[what] for what in BROKEN if count[what]), ""))


def pattern(paths: Sequence[str]) -> str:
    """What paths have in common, part by part, with * for what they have not."""
    parts = [set(column) for column in zip(*(path.split("/") for path in paths), strict=False)]
    return "/".join(next(iter(part)) if len(part) == 1 else "*" for part in parts)


def following(found: Sequence[Standing]) -> list[Next]:
    """What to type next, as far as what stands here tells."""
    studies = list(declared.section("studies"))
    first = FIRST if FIRST in studies else studies[0]
    broken = [each for each in found if each.state in BROKEN]
    lacking = [
        each.stage.kind for each in found if first in each.stage.studies and each.state != "there"
    ]
    target = first if any(each.stage.name == first for each in found) else f"collect@{first}"
    hints = []
    if broken:
        one = broken[0].stage.name
        hints.append(
            Next(
                f"dvc repro {one}",
                f"goes on where {one} {'failed' if broken[0].state == 'failed' else 'was stopped'}",
            )
        )
    if any(kind not in ("paper", *(each.stage.kind for each in broken)) for kind in lacking):
        hints.append(Next(f"dvc repro {target}", f"runs the {first} study, what of it is not here"))
    elif not broken:
        hints.append(
            Next(
                f"python -m replicate summary {first} results",
                f"λ̂ and verdicts of the {first} study",
            )
        )
        hints.append(Next("python -m replicate verify", "compares them with those in git"))
    others = [
        name
        for name in studies
        if name != first
        and all(each.state != "there" for each in found if each.stage.studies == (name,))
    ]
    if others:
        hints.append(
            Next("python -m replicate plan", f"what {' and '.join(others)}, not run, will take")
        )
    return [*hints, Next("python -m replicate --help", "lists all commands")]
