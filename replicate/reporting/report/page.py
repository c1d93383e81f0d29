"""The page: all that the templates show, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from replicate.reporting.formatting import number
from replicate.reporting.report import alternatives, brief, comparison, estimates, settings, trust
from replicate.reporting.report.evidence import Reference, Study
from replicate.reporting.report.svg import FigureError, inlined
from replicate.reporting.report.table import Table
from replicate.reporting.report.verdicts import PUBLISHED, verdicts
from replicate.study.claims import Rules


@dataclass(frozen=True)
class Drawing:
    """One figure: its place in the page, its caption, and what it shows in words."""

    number: int
    box: str
    content: Markup
    caption: str
    words: str

    @property
    def name(self) -> str:
        return f"figure-{self.number}"


@dataclass(frozen=True)
class Chains:
    """A model's page of diagnostics."""

    model: str
    summary: str
    advice: Sequence[str]
    drawing: Drawing


@dataclass(frozen=True)
class Block:
    """What one section shows of one study; where nothing of it was run, that."""

    study: str
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()


class Page:
    """Gathers what the templates show; figures are numbered as they come."""

    def __init__(self, studies: Sequence[Study], reference: Reference, rules: Rules) -> None:
        self.studies, self.reference, self.rules = studies, reference, rules
        self.drawings: dict[tuple[str, str], Drawing] = {}

    def drawing(self, study: Study | None, name: str, caption: str, words: str) -> list[Drawing]:
        """None where the study has no such figure."""
        source = self.reference.drawn if study is None else study.figures.get(name)
        if source is None:
            return []
        count = len(self.drawings) + 1
        try:
            box, content = inlined(source, f"figure-{count}")
        except FigureError as error:
            raise FigureError(
                f"{name}.svg{f' of {study.name}' if study else ''}: {error}"
            ) from None
        drawn = Drawing(count, box, Markup(content), caption, words)  # noqa: S704 (svg.py lets nothing through that would run)
        self.drawings[study.name if study else "", name] = drawn
        return [drawn]

    def context(self) -> dict[str, object]:
        studies, reference = self.studies, self.reference
        judged = verdicts(studies, reference)
        context: dict[str, object] = {
            "rules": {
                key: number(value) if isinstance(value, float) else str(value)
                for key, value in asdict(self.rules).items()
            },
            "names": [PUBLISHED, *(study.name for study in studies)],
            "claims": judged,
            "answer": brief.answer(judged),
            "tallies": brief.counted(judged),
            "found": brief.found(studies, reference),
            "trust": brief.trust(studies, reference),
            "missing": brief.not_run(studies),
            "recomputed": comparison.recomputed(reference),
            "variance": comparison.variance(studies, reference),
            "replicated": [
                comparison.replicated(study, reference, self.rules.level)
                for study in studies
                if self.shares(study)
            ],
            "protocol": [self.protocol(study) for study in studies],
            "estimates": [self.estimates(study) for study in studies],
            "chains": [self.chains(study) for study in studies],
            "calibration": self.calibration(),
            "search": [self.search(study) for study in studies],
            "transfer": [self.transfer(study) for study in studies],
            "quantisation": [self.quantisation(study) for study in studies],
            "cost": [
                Block(study.name, (), (trust.cost(study), trust.precision(study)))
                for study in studies
            ],
            "provenance": [
                Block(study.name, (), (trust.provenance(study),), trust.packages(study))
                for study in studies
            ],
            "windows": trust.windows(studies),
            "absent": [
                (
                    study.name,
                    brief.missing(study),
                    [c for c in study.claims if c.verdict == "not run"],
                )
                for study in studies
            ],
        }
        return context | {"drawings": self.drawings}

    def shares(self, study: Study) -> bool:
        """Whether the study has a model that there are published figures of."""
        return any(
            model in study.models
            for models in self.reference.figures.models.values()
            for model in models
        )

    def estimates(self, study: Study) -> Block:
        caption = "λ̂ against size: means over shuffles with 95 % intervals; faint, each shuffle. b, as published."
        drawn = (
            self.drawing(study, "llc", caption, alternatives.llc(study, self.reference))
            if study.run
            else []
        )
        return Block(
            study.name,
            drawn,
            (estimates.llc(study), estimates.estimators(study), estimates.minima(study)),
        )

    def protocol(self, study: Study) -> Block:
        run = any(row.status == "run" for row in study.original)
        caption = "The protocol of 2023. a, as published; b, repeated to the letter; c, with a baseline of more and more minibatches."
        drawn = (
            self.drawing(study, "original", caption, alternatives.original(study, self.reference))
            if run
            else []
        )
        return Block(study.name, drawn, (comparison.protocol(study),))

    def chains(self, study: Study) -> tuple[str, list[Chains]]:
        pages = []
        rows = {row.model: row for row in study.default}
        for trace in study.traces:
            caption = f"{trace.model}: loss of every chain, running λ̂ with its 95 % interval, and λ̂ of the chains."
            drawn = self.drawing(
                study,
                f"diagnostics-{trace.model}",
                caption,
                alternatives.diagnostics(trace, rows[trace.model]),
            )
            pages += [
                Chains(trace.model, estimates.health(rows[trace.model]), trace.advice, each)
                for each in drawn
            ]
        return study.name, pages

    def calibration(self) -> Block:
        caption = "Estimated against true λ, and their ratio by target with 95 % intervals; below, samplers with a mistake made on purpose."
        drawn = self.drawing(None, "calibration", caption, alternatives.calibration(self.reference))
        tables = (
            trust.calibration(self.reference),
            trust.coverage(self.reference),
            trust.controls(self.reference),
        )
        return Block("", drawn, tables)

    def search(self, study: Study) -> Block:
        drawn = []
        for family in study.families:
            if any(row.family == family for row in study.search):
                caption = f"Every setting tried for {family}, framed where a rule chooses it; draws per gradient; what explains λ̂."
                drawn += self.drawing(
                    study, f"search-{family}", caption, alternatives.search(study, family)
                )
        return Block(
            study.name,
            drawn,
            (settings.chosen(study), settings.importances(study)),
            settings.tried(study),
        )

    def transfer(self, study: Study) -> Block:
        run = any(row.status == "run" for row in study.transfer)
        caption = "a, λ̂ at each step size over λ̂ at the chosen one, with 95 % intervals over paired shuffles; b, R-hat beside its limit."
        drawn = (
            self.drawing(study, "transfer", caption, alternatives.transfer(study, self.rules.rhat))
            if run
            else []
        )
        return Block(study.name, drawn, (settings.transfer(study),))

    def quantisation(self, study: Study) -> Block:
        run = any(row.status == "run" for row in study.quantisation)
        caption = "Rise of the loss at w* and change of λ̂ by weight format, with 95 % intervals."
        drawn = (
            self.drawing(study, "quantisation", caption, alternatives.quantisation(study))
            if run
            else []
        )
        return Block(study.name, drawn, (settings.quantisation(study),))


def render(studies: Sequence[Study], reference: Reference, rules: Rules) -> str:
    """The whole file.

    Raises:
        FigureError: a figure is no SVG.
        LookupError, ValueError: the records do not fit one another.
    """
    loader = PackageLoader("replicate.reporting.report", "")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(loader.get_source(environment, "style.css")[0])  # noqa: S704
    return environment.get_template("page.html.j2").render(
        style=style, **Page(studies, reference, rules).context()
    )
