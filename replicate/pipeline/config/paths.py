"""Where the stages read and write, from the project's root; dvc.yaml names the same paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESERVED = ("published", "reference", "schemas")  # folders of results/ beside those of the studies


@dataclass(frozen=True)
class Paths:
    """Folders and files, relative to the project's root."""

    data: Path = Path("data")
    results: Path = Path("results")
    published: Path = Path("data/published.yaml")
    benchmarks: Path = Path("benchmarks/results.json")
    report: Path = Path("report.html")
    cache: Path = Path("cache")
    logs: Path = Path("logs")

    def windows(self, family: str) -> Path:
        """Folder of a family's token windows."""
        return self.data / family / "windows"

    def models(self, family: str) -> Path:
        """Folder of a family's models at w*, a folder each."""
        return self.data / family / "models"

    def baselines(self, family: str) -> Path:
        """Folder of the losses at w* of a family's models, a folder each."""
        return self.data / family / "baselines"

    def search(self, family: str) -> Path:
        """Folder of a family's search, with the setting that it chose."""
        return self.data / family / "search"

    def traces(self, family: str) -> Path:
        """Folder of the traces of a family's models, a trace each."""
        return self.data / family / "traces"

    def transfer(self, family: str) -> Path:
        """Folder of the traces of a family's models at other step sizes."""
        return self.data / family / "transfer"

    def original(self, family: str) -> Path:
        """Folder of the traces of the protocol of 2023."""
        return self.data / family / "original"

    def quantisation(self, family: str) -> Path:
        """Folder of the comparison of weight formats."""
        return self.data / family / "quantisation"

    def study(self, study: str) -> Path:
        """Folder of a study's results."""
        return self.results / study

    def generated(self, study: str) -> Path:
        """Folder of a study's figures and LaTeX tables."""
        return Path("paper/generated") / study
