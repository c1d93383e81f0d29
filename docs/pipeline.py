"""The pipeline's diagram, from what `dvc dag` says: docs/pipeline.mmd, docs/pipeline.svg and the
fences of two pages.

    python docs/pipeline.py

A stage of many models, families or studies is one box, and an arrow that follows from others is
left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import yaml
from grandalf.graphs import Edge, Graph, Vertex
from grandalf.layouts import SugiyamaLayout

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/architecture.md")
WIDTH, HEIGHT, GAP = 108, 30, 26  # of a box; between boxes


def pipeline() -> nx.DiGraph:
    """Stages by kind, and what depends on what; `computes`: whether a stage needs the locked
    packages, and so torch.
    """
    command = [sys.executable, "-m", "dvc", "dag", "--mermaid", "--collapse-foreach-matrix"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r'(\w+)\["([^"]+)"\]', said))
    found = nx.transitive_reduction(
        nx.DiGraph([(names[a], names[b]) for a, b in re.findall(r"(\w+)-->(\w+)", said)])
    )
    graph = nx.DiGraph()
    for name, body in yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))[
        "stages"
    ].items():
        graph.add_node(
            name, computes="requirements/base.lock" in body.get("do", body).get("deps", ())
        )
    graph.add_edges_from(sorted(found.edges))
    return graph


def mermaid(graph: nx.DiGraph) -> str:
    lines = [
        "flowchart TD",
        *(f"    {name}" for name in graph),
        *(f"    {a} --> {b}" for a, b in graph.edges),
    ]
    computing = ",".join(name for name, computes in graph.nodes(data="computes") if computes)
    lines += ["    classDef computes stroke-width:3px", f"    class {computing} computes"]
    return "\n".join(lines) + "\n"


def svg(graph: nx.DiGraph) -> str:
    """Laid out in layers (Sugiyama et al. 1981), each part of the graph beside the last."""
    boxes = {name: Box(name) for name in graph}
    lines = [Edge(boxes[a], boxes[b]) for a, b in graph.edges]
    for part in Graph(list(boxes.values()), lines).C:
        layout = SugiyamaLayout(part)
        layout.xspace, layout.yspace = GAP, GAP
        layout.init_all(optimize=True)
        layout.draw(10)
    at = {name: box.xy for name, box in boxes.items()}
    left, top = min(x for x, _ in at.values()), min(y for _, y in at.values())
    place = {
        name: (round(x - left + WIDTH / 2 + 2), round(y - top + HEIGHT / 2 + 2))
        for name, (x, y) in at.items()
    }
    wide, high = (
        max(place[name][axis] for name in place) + half + 2
        for axis, half in ((0, WIDTH // 2), (1, HEIGHT // 2))
    )
    out = [
        f'<svg class="pipeline" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" role="img">'
    ]
    out.append("<title>The stages of dvc.yaml and what depends on what</title>")
    out.append(
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    )
    out.append('<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>')
    for a, b in graph.edges:
        (x1, y1), (x2, y2) = place[a], place[b]
        start, end = y1 + HEIGHT // 2, y2 - HEIGHT // 2
        bend = (start + end) // 2
        curve = f"M{x1} {start}C{x1} {bend} {x2} {bend} {x2} {end}"
        out.append(
            f'<path class="edge" d="{curve}" fill="none" stroke-width="1.2" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in place.items():
        kind = ' class="computes"' if graph.nodes[name]["computes"] else ""
        rect = f'<rect x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        out.append(
            f'<g{kind}>{rect}<text x="{x}" y="{y + 4}" text-anchor="middle" font-size="13">{name}</text></g>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"


class Box(Vertex):
    """A vertex and its view in one: what grandalf wants to know of a box, and where it puts it."""

    w, h, xy = WIDTH, HEIGHT, (0.0, 0.0)

    @property
    def view(self) -> Box:
        return self


def files() -> dict[str, str]:
    """What each file should hold."""
    graph = pipeline()
    text = mermaid(graph)
    pages = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
    drawn = {
        name: re.sub(r"(?s)(?<=```mermaid\n).*?(?=```)", lambda _: text, page)
        for name, page in pages.items()
    }
    return {"docs/pipeline.mmd": text, "docs/pipeline.svg": svg(graph), **drawn}


if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
