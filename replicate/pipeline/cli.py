"""Defines the command line: a command for each stage of dvc.yaml, and commands for people.

A command imports slow modules only when it runs.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from replicate.errors import UserError, refusal
from replicate.pipeline import processes

NAME = "python -m replicate"
STAGES = {  # the name of a stage → what its argument names (None: no argument), its help text
    "extract": ("family", "Reviews become the token windows of a family."),
    "pretrain": ("family", "Train or fetch a family's models."),
    "baseline": ("family", "Loss of every example at w*, and the gradient there."),
    "search": ("family", "Try sampler settings, and choose one for a family."),
    "estimate": ("family", "Sample around w* at the chosen setting."),
    "neighbours": ("family", "Sample with the same noise at a neighbouring localisation."),
    "curve": ("family", "Follow λ̂ along the localisation and the temperature."),
    "transfer": ("family", "Try the chosen step size on every size."),
    "original": ("family", "Run the protocol of November 2023."),
    "settings": ("family", "Sample at the settings that a family lists, to a precision."),
    "quantisation": ("study", "Compare weight formats on the same models."),
    "collect": ("study", "Gather a study's results as JSON."),
    "read": ("study", "Judge a study's claims; draw its figures, write its tables."),
    "calibrate": ("study", "Estimate λ where it is known."),
    "coverage": ("study", "Check the 95 % intervals of λ̂ by many short runs."),
    "published": (None, "Analyse and judge the figures published in 2023."),
    "reference": (None, "Draw and tabulate calibration, published figures and costs."),
    "report": (None, "Write the report, one HTML file."),
    "summary": ("study", "Print a study's verdicts and estimates."),
}
# the stages that compute models one by one, and so have the options --only and --scheduler
BY_MODEL = ("pretrain", "baseline", "estimate", "neighbours", "curve", "transfer", "original")
BY_MODEL += ("settings", "quantisation")


class Group(click.Group):
    """A group of commands that reports a user's mistake as one line and exits with code 2."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs a command as click does, but prints click's own errors as one line too."""
        try:
            processes.check_environment()
            code = super().main(*args, **(extra | {"standalone_mode": False}))
            sys.exit(code if isinstance(code, int) else 0)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            name = context.command_path if context else NAME
            line = UserError(f"{error.format_message().rstrip('.')}; see `{name} --help`")
        except Exception as error:
            line = error if isinstance(error, UserError) else refusal(error)
            if line is None:
                raise
        click.echo(f"error: {line}", err=True)
        sys.exit(2)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Does the local learning coefficient of a language model grow with its size?

    `dvc repro demo` runs the stages of the demo study, `dvc repro` all; `dvc status` says what has
    changed since.
    """


def add_stage(name: str, kind: str | None, purpose: str) -> None:
    """Adds the command that runs `replicate.pipeline.stages.<name>`.

    Args:
        name: the name of the stage.
        kind: what its argument is, a `family` or a `study`; None if it has no argument.
        purpose: the help text.
    """
    options: list[click.Parameter] = [click.Argument([kind])] if kind else []
    if name in BY_MODEL:
        options.append(click.Option(["--only"], metavar="MODEL", help="Compute one model alone."))
        help_ = "Address of a running dask scheduler that takes the work."
        options.append(click.Option(["--scheduler"], metavar="ADDRESS", help=help_))

    def run(scheduler: str | None = None, **given: str | None) -> None:
        from replicate.pipeline import cache, config, parallel, runs

        found = config.load()
        if scheduler is not None:
            machine = found.machine.model_copy(update={"scheduler": scheduler})
            found = found.model_copy(update={"machine": machine})
        argument = given.pop(kind) if kind else None
        if kind is not None:
            names = found.families if kind == "family" else found.studies
            if argument not in names:
                said = f"params.yaml has none of that name; give one of {', '.join(names)}"
                raise UserError(f"{kind} {argument!r}: {said}")
        found = found.of_neighbours(argument) if name == "neighbours" and argument else found
        elsewhere = found.machine.scheduler or parallel.shared()
        if name in cache.UNITS and found.machine.workers != 1 and not elsewhere:
            parallel.prepare_forks()  # it imports torch while this process imports the stage
        stage = import_module(f"replicate.pipeline.stages.{name}")
        with runs.logged(found.paths.logs / "runs.jsonl", found.paths.benchmarks, name, argument):
            stage.run(found, *([argument] if kind else []), **given)

    main.add_command(click.Command(name, params=options, callback=run, help=purpose))


for stage_name, (stage_kind, stage_purpose) in STAGES.items():
    add_stage(stage_name, stage_kind, stage_purpose)

as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


@main.command()
@click.argument("model")
@click.option("--text", required=True, help="A corpus; or sampled: MODEL writes the text itself.")
@click.option("--windows", type=click.IntRange(2), help="At most; of sampled text 1000.")
@click.option("--column", default="text", show_default=True, help="The column of the texts.")
@click.option("--revision", help="The commit, if MODEL is a repository of the hub.")
@click.option(
    "--length", default=200, show_default=True, type=click.IntRange(2), help="Tokens of a window."
)
@click.option("--loss", default="tokens", type=click.Choice(["tokens", "last"]), show_default=True)
@click.option("--nbeta", type=float, help="Inverse temperature × examples; chosen if left out.")
@click.option("--localization", type=float, help="The pull towards w*; chosen if left out.")
@click.option("--lr", type=float, help="The step size; chosen if left out.")
@click.option("--chains", default=4, show_default=True)
@click.option("--precision", type=float, help="Of chosen chains: half the 95 % interval, of λ̂.")
@click.option("--budget", type=int, help="Of chosen chains: the most minibatches' gradients.")
@click.option("--burn-in", type=int, help="Of given settings: steps before the first draw.")
@click.option("--draws", type=int, help="Of given settings: steps that the estimate uses.")
@click.option("--batch-size", type=int, help="Windows in a step's minibatch.")
@click.option("--evaluated", type=int, help="Examples for the singular fluctuation.")
@click.option("--seed", default=0, show_default=True)
@click.option("--curve", is_flag=True, help="λ̂ along falling localization, while chains are local.")
@click.option("--estimators", is_flag=True, help="Every estimator instead of the best.")
@as_json
def llc(
    model: str,
    text: str,
    windows: int | None,
    column: str,
    revision: str | None,
    length: int,
    curve: bool,
    estimators: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Estimate λ̂ of one model on a text, without params.yaml.

    MODEL is a folder with a model, or a repository of the hub with a revision. If nbeta,
    localization or lr is left out, it is chosen from the model, and the chains are as long as the
    precision needs.
    """
    from replicate import api, estimating
    from replicate.data import corpora
    from replicate.data.windows import consecutive
    from replicate.models import pretrained
    from replicate.models.cpu_kernels import fast_cpu

    if curve and estimators:
        raise UserError("--estimators: a curve has one estimator; leave it out")
    loaded, tokenizer = pretrained.load(model, revision)
    with fast_cpu():
        if text == "sampled":
            tokens_NxL = api.sample_text(loaded, windows or 1000, length, seed=settings["seed"])
        else:
            tokens_NxL = consecutive(corpora.read(Path(text), column), tokenizer, length)[:windows]
        given = {name: value for name, value in settings.items() if value is not None}
        if curve:
            found = shown = estimating.curve(loaded, tokens_NxL, **given)
        else:
            found = estimating.llc(loaded, tokens_NxL, **given)
            shown = found.table() if estimators else found
    click.echo(found.to_json() if as_json else shown)


@main.command()
@click.argument("study", required=False)
@click.option("--device", help="A named device instead of this machine; a wrong name lists them.")
@as_json
def plan(study: str | None, device: str | None, as_json: bool) -> None:
    """What a study costs: parameters, memory, operations, time."""
    from replicate.pipeline import config, cost

    cost.run(config.load(), study, device, as_json)


@main.command()
@as_json
def doctor(as_json: bool) -> None:
    """See what this machine has and lacks for the work.

    Exit code 0 if the demo study can run here, else 1.
    """
    from replicate.pipeline import config, doctor

    sys.exit(0 if doctor.run(config.load(), as_json) else 1)


@main.command()
@click.argument("a", required=False)
@click.argument("b", required=False)
@as_json
def compare(a: str | None, b: str | None, as_json: bool) -> None:
    """Compare results, each within its error; by default those here with HEAD's.

    A and B: a study, a folder of results, or a branch, tag, commit or DVC experiment; PLACE:STUDY
    for one study of it. Exit code 1 if anything differs.
    """
    from replicate.pipeline import config
    from replicate.pipeline.stages import compare

    sys.exit(0 if compare.run(config.load(), a, b, as_json) else 1)


@main.command()
@click.argument("models", nargs=-1)
@click.option("--sample", type=click.IntRange(1), help="Compute so many kept estimates again.")
@as_json
@click.pass_context
def verify(ctx: click.Context, models: tuple[str, ...], sample: int | None, as_json: bool) -> None:
    """Compare the results here with those of HEAD: `compare` without arguments.

    MODELS, such as 34k-1, are those whose kept estimates --sample draws from; by default all.
    """
    if sample is None:
        if models:
            raise UserError(f"verify {models[0]}: needs --sample K, the number of estimates")
        ctx.invoke(compare, as_json=as_json)
        return
    from replicate.pipeline import config, kept_again

    sys.exit(0 if kept_again.run(config.load(), sample, as_json, models) else 1)


@main.command()
@click.argument("family")
def keep(family: str) -> None:
    """Write a family's trainings and traces to data/kept, for git."""
    from replicate.pipeline import config, kept

    kept.keep(config.load(), family)


@main.command()
@click.argument("address")
@click.option("--workers", type=click.IntRange(1), help="Processes; else one a GPU or a core.")
@click.option(
    "--gpus-per-model", type=click.IntRange(1), default=1, help="GPUs that each process sees."
)
@click.option("--host", help="This machine's address, as the others reach it.")
def worker(address: str, workers: int | None, gpus_per_model: int, host: str | None) -> None:
    """Serve a dask scheduler with processes of this machine, until stopped."""
    from replicate.pipeline import parallel, serving

    serving.serve(address, workers or parallel.count("auto", gpus_per_model), gpus_per_model, host)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def share(command: tuple[str, ...]) -> None:
    """Run a command, such as dvc repro, whose stages share worker processes."""
    from replicate.pipeline import config, parallel, sharing

    os._exit(sharing.share(command, parallel.count(config.load().machine.workers)))


@main.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
def schemas(out: Path) -> None:
    """Write the JSON Schema of every published file."""
    from replicate.data.json_io import write_json
    from replicate.study import records

    for name, schema in records.schemas().items():
        write_json(out / f"{name}.schema.json", schema)


@main.command()
@click.argument("source", type=click.Path(path_type=Path), default=Path("paper/main.tex"))
@click.option("--check", is_flag=True, help="Only see whether LaTeX is here.")
def paper(source: Path, check: bool) -> None:
    """Build the write-up as PDF (needs LaTeX)."""
    from replicate.pipeline.stages import paper

    paper.check() if check else paper.run(source)


def run() -> None:
    """Runs the command that this process was started with."""
    processes.begin(os.getppid() if "DVC_STAGE" in os.environ else None)
    main(prog_name=NAME)
