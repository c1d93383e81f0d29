"""The command line: one command per stage of dvc.yaml, which gives it its paths. Everything else is
imported when it is needed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from replicate.errors import UserError, refusal
from replicate.pipeline import interruption

NAME = "python -m replicate"


class Location(click.Path):
    """A path that says where: nothing at all, as of a variable that is not set, would be the folder
    that one is in.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return (
            super().convert(value, param, ctx)
            if str(value)
            else self.fail("an empty path", param, ctx)
        )


PATH = Location(path_type=Path)
RESULTS = Path("results")
CALLED = (
    "plan",
    "doctor",
    "check",
    "verify",
    "compare",
    "summary",
    "paper",
    "completion",
)  # by a person, in this order; others by dvc.yaml


def forget_compiled() -> None:
    """Removes what Python compiled of the project, as a disk that is full cuts it short."""
    for file in Path(__file__).parents[1].rglob("*.pyc"):
        with suppress(OSError):
            file.unlink()


class Group(click.Group):
    """Commands in the order of the pipeline; a user's mistake ends in one line and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those that a person calls, and apart from them those that DVC does."""
        called = [name for name in CALLED if name in self.commands]
        stages = [name for name in self.commands if name not in called]
        for title, names in (
            ("Commands", called),
            ("Stages, which dvc.yaml calls with their paths", stages),
        ):
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name, self.commands[name].get_short_help_str(formatter.width))
                        for name in names
                    ]
                )

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click's own, but what click refuses is one line too."""
        try:
            code = super().main(*args, standalone_mode=False, **extra)
            if not standalone_mode:
                return code
        except click.Abort:
            code = 1
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            said = f"{error.format_message().rstrip('.')}; see `{context.command_path if context else NAME} --help`"
            click.echo(f"error: {UserError(said)}", err=True)
            code = 2
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if interruption.ending.is_set():
                time.sleep(60)  # a thread is about to end this process
            line = error if isinstance(error, UserError) else refusal(error)
            if line is None and isinstance(error, EOFError):
                raise RuntimeError(
                    str(error)
                ) from error  # click takes the end of a file for the user's wish to stop
            if line is None:
                raise
            if line is not error:
                forget_compiled()
            if os.environ.get("RANK", "0") != "0":
                time.sleep(
                    2
                )  # the first of several processes says the same, as a rule, and ends the others
            click.echo(f"error: {line}", err=True)
            sys.exit(2)


@click.group(
    cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--json", "as_json", is_flag=True, help="For programs, where no command is given.")
@click.pass_context
def main(ctx: click.Context, as_json: bool) -> None:
    """Does the local learning coefficient of a language model grow with its size?

    Without COMMAND: the stages of the pipeline, what each has produced, and what to type next. `dvc
    repro demo` runs those of the demo study, `dvc repro` all.
    """
    if ctx.invoked_subcommand is None:
        from replicate.pipeline.stages import overview

        overview.run(as_json)
    elif as_json:
        raise click.UsageError(
            f"--json before a command; give it after {ctx.invoked_subcommand}, if that has it"
        )


def names(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What a shell offers in place of an argument, see replicate/pipeline/stages/completion.py."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from replicate.pipeline.stages import completion

        return [name for name in completion.candidates(kind) if name.startswith(incomplete)]

    return complete


def stage(
    name: str, purpose: str, argument: str | None, paths: str, parallel: bool = False
) -> None:
    """Adds the command `name [ARGUMENT] PATH…`, which runs the stage of that name
    (replicate/pipeline/command.py), if `parallel` on several processes.
    """

    def run(**values: object) -> None:
        from replicate.pipeline import command

        given = {path: Path(str(values[path])) for path in paths.split()}
        command.run(name, (argument, str(values[argument])) if argument else None, given, parallel)

    arguments: list[click.Parameter] = (
        [click.Argument([argument], shell_complete=names(argument))] if argument else []
    )
    arguments += [click.Argument([path], type=PATH) for path in paths.split()]
    main.add_command(click.Command(name, params=arguments, callback=run, help=purpose))


stage("extract", "Reviews to token windows of one family.", "family", "out")
stage(
    "pretrain",
    "Train a control model, or fetch a pinned one from the hub.",
    "model",
    "windows out log",
)
stage(
    "baseline",
    "Loss of every example at w*, and the gradient there.",
    "model",
    "windows weights out",
)
stage(
    "search",
    "Try sampler settings and choose one for a family.",
    "family",
    "windows weights baseline out log",
)
stage(
    "estimate",
    "Sample around w* at the chosen setting.",
    "model",
    "windows weights baseline search out log",
    parallel=True,
)
stage(
    "transfer",
    "Try the chosen step size on every size.",
    "family",
    "windows weights baseline search out log",
    parallel=True,
)
stage(
    "quantisation",
    "Try weight formats on the same models.",
    "study",
    "windows weights search out log",
    parallel=True,
)
stage(
    "original",
    "Run the protocol of November 2023.",
    "family",
    "windows weights out log",
    parallel=True,
)
stage("collect", "Gather a study's results as JSON.", "study", "data out")
stage("calibrate", "Estimate λ where it is known.", None, "out log")
stage("published", "Analyse and judge the figures published in 2023.", None, "published out")
stage("claims", "Judge the write-up's claims on a study.", "study", "results published out")
stage("figures", "Draw a study's figures.", "study", "results published out")
stage("tables", "Write a study's LaTeX tables and values.", "study", "results published out")
stage(
    "reference",
    "Draw the calibration, tabulate the published verdicts and the costs.",
    None,
    "results published benchmarks out",
)
stage("report", "Write the report, one HTML file.", None, "results published figures page")
stage("summary", "Print a study's estimates and verdicts.", "study", "results")


@main.command()
@click.argument("out", type=PATH, required=False)
def check(out: Path | None) -> None:
    """See whether params.yaml is well-formed, for DVC too."""
    from replicate.pipeline.config import load
    from replicate.pipeline.stages import check

    try:
        check.run(load(), out)
    except OSError as error:
        raise refusal(error) or UserError(
            f"{out}: cannot be written ({error.strerror}); give a file as data/params.checked"
        ) from None


@main.command()
@click.argument("targets", nargs=-1, shell_complete=names("stage"))
@click.option(
    "--device",
    shell_complete=names("device"),
    help="Plan for a named device instead of this machine, by its maker's figures; a wrong name lists them.",
)
@click.option("--measure/--no-measure", default=True, help="Whether to time a few steps here.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def plan(targets: tuple[str, ...], device: str | None, measure: bool, as_json: bool) -> None:
    """What targets will cost: operations, memory, download, time.

    From configurations alone; it downloads nothing. Without TARGETS, everything.
    """
    from replicate.pipeline.config import load
    from replicate.pipeline.stages import plan

    plan.run(load(), targets, device, measure, as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(as_json: bool) -> None:
    """See what this machine has and lacks for the work.

    Exit code 0 if the demo study can run here, else 1.
    """
    from replicate.pipeline.config import load
    from replicate.pipeline.stages import doctor

    sys.exit(0 if doctor.run(load(), Path("requirements"), as_json) else 1)


@main.command()
@click.argument("studies", metavar="[STUDY]...", nargs=-1, shell_complete=names("study"))
@click.option(
    "--reference",
    shell_complete=names("revision"),
    help="A branch, tag or commit, or a folder of results; HEAD, if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify(studies: tuple[str, ...], reference: str | None, as_json: bool) -> None:
    """Compare results with those in git, each within its error.

    Without STUDY, all of them. Exit code 0 if nothing differs, 1 if anything does.
    """
    from replicate.pipeline.config import load
    from replicate.pipeline.stages import verify

    sys.exit(0 if verify.run(load(), studies, RESULTS, reference, as_json) else 1)


@main.command()
@click.argument("a", shell_complete=names("study or revision"))
@click.argument("b", shell_complete=names("study or revision"))
@click.argument("studies", metavar="[STUDY]...", nargs=-1, shell_complete=names("study"))
@click.option(
    "--estimator", default="controlled", help="Whose λ̂ to compare; controlled, if not given."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def compare(a: str, b: str, studies: tuple[str, ...], estimator: str, as_json: bool) -> None:
    """Compare two studies or experiments, side by side.

    A and B: a study of results/, a folder of results, or a branch, tag, commit or DVC experiment;
    PLACE:STUDY for one study of it. Without STUDY, all that both have.
    """
    from replicate.pipeline.config import load
    from replicate.pipeline.stages import compare

    compare.run(load(), (a, b), studies, RESULTS, estimator, as_json)


@main.command()
@click.argument("out", type=PATH)
def schemas(out: Path) -> None:
    """Write the JSON Schema of every published file."""
    from replicate.data.json_io import write_json
    from replicate.pipeline import command
    from replicate.study import records as results

    command.check({"out": out}, new=False)
    for name, schema in results.schemas().items():
        write_json(out / f"{name}.schema.json", schema)


@main.command()
@click.argument("source", type=PATH, default=Path("paper/main.tex"))
@click.option("--check", is_flag=True, help="Only see whether LaTeX is here.")
def paper(source: Path, check: bool) -> None:
    """Build the write-up as PDF (needs LaTeX)."""
    from replicate.pipeline.stages import paper

    paper.check() if check else paper.run(source)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Make a shell complete commands and names.

    In bash or zsh: eval "$(python -m replicate completion bash)". In fish: python -m replicate
    completion fish | source. It defines `replicate` as short for `python -m replicate`, and
    completes that: commands, and names in params.yaml, dvc.yaml and git.
    """
    from replicate.pipeline.stages import completion

    click.echo(completion.script(shell, main))


def run() -> None:
    interruption.watch()
    main(prog_name=NAME, complete_var="_REPLICATE_COMPLETE")
