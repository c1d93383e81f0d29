"""Names the files and folders that stages read and write; dvc.yaml names the same paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESERVED = ("published", "reference", "schemas")  # folders in results/ that belong to no study


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
        """Returns the folder of a family's token windows."""
        return self.data / family / "windows"

    def models(self, family: str) -> Path:
        """Returns the folder of a family's models at w*; each model has its own folder in it."""
        return self.data / family / "models"

    def baselines(self, family: str) -> Path:
        """Returns the folder of a family's losses at w*; each model has its own folder in it."""
        return self.data / family / "baselines"

    def search(self, family: str) -> Path:
        """Returns the folder of a family's search and of the sampler that it chose."""
        return self.data / family / "search"

    def traces(self, family: str) -> Path:
        """Returns the folder of a family's traces, one for each model."""
        return self.data / family / "traces"

    def neighbours(self, family: str) -> Path:
        """Returns the folder of a family's traces at the neighbouring γ, one for each model."""
        return self.data / family / "neighbours"

    def curve(self, family: str) -> Path:
        """Returns the folder of a family's traces along γ, one for each model, nβ and γ."""
        return self.data / family / "curve"

    def transfer(self, family: str) -> Path:
        """Returns the folder of a family's traces at other step sizes."""
        return self.data / family / "transfer"

    def original(self, family: str) -> Path:
        """Returns the folder of a family's traces by the protocol of 2023."""
        return self.data / family / "original"

    def quantisation(self, family: str) -> Path:
        """Returns the folder of a family's comparison of weight formats."""
        return self.data / family / "quantisation"

    def settings(self, family: str) -> Path:
        """Returns the folder of a family's traces at the settings that it lists."""
        return self.data / family / "settings"

    def study(self, study: str) -> Path:
        """Returns the folder of a study's results."""
        return self.results / study

    def generated(self, study: str) -> Path:
        """Returns the folder of a study's figures and LaTeX tables."""
        return Path("paper/generated") / study
