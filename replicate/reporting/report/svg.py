"""A figure's SVG as part of a page: names of its own, the page's ink and font, and nothing that
could be fetched or run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as Tree

ELEMENTS = {"svg", "g", "defs", "clipPath", "path", "rect", "use", "text", "tspan", "image"}
ATTRIBUTES = {
    "clip-path",
    "d",
    "height",
    "href",
    "id",
    "preserveAspectRatio",
    "style",
    "transform",
    "viewBox",
    "width",
    "x",
    "y",
}
PROPERTIES = {
    "fill",
    "fill-opacity",
    "font-size",
    "font-style",
    "font-weight",
    "opacity",
    "text-anchor",
}
PROPERTIES |= {
    f"stroke{part}"
    for part in ("", "-dasharray", "-dashoffset", "-linecap", "-linejoin", "-opacity", "-width")
}
# of replicate/reporting/figures/style.py → what the page's style sheet has for them, lighter where
# it is dark
COLOURS = {
    "#0072b2": "blue",
    "#d55e00": "vermilion",
    "#009e73": "green",
    "#cc79a7": "purple",
    "#e69f00": "orange",
    "#56b4e9": "sky",
}
SAFE = re.compile(r"(?!.*url)[\w\s#.,%()-]*|url\(#[\w-]+\)")
SOURCES = {
    "href": re.compile(r"#|data:image/png;base64,"),
    "clip-path": re.compile(r"url\(#[\w-]+\)$"),
}  # this page alone
REFERENCE = re.compile(r"#([\w-]+)")


class FigureError(ValueError):
    """What should be one is not."""


def inlined(source: str, name: str) -> tuple[str, str]:
    """The viewBox, and a `<g id=name>` with all that is in the figure; every other id starts with
    `name`.

    Raises:
        FigureError: it is no SVG with a viewBox.
    """
    try:
        root = Tree.fromstring(source)  # noqa: S314
    except Tree.ParseError as error:
        raise FigureError(str(error)) from None
    box = root.get("viewBox", "")
    if local(root.tag) != "svg" or not re.fullmatch(r"[\d. -]+", box):
        raise FigureError("no SVG with a viewBox")
    group = Tree.Element("g", {"id": name})
    for child in root:
        group.extend(kept(child, name, plate=None))
    used = {match for element in group.iter() for match in referred(element)} | {name}
    for element in group.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    return box, Tree.tostring(group, encoding="unicode")


def kept(element: Tree.Element, name: str, plate: tuple[float, float] | None) -> list[Tree.Element]:
    """The same with what is allowed alone. `plate`: top and bottom of a panel with a picture, on
    which colours stay as they are, as its annotations are chosen for it.
    """
    tag = local(element.tag)
    if tag not in ELEMENTS:
        return []
    own = element.get("id", "")
    if own.startswith("axes_"):
        plate = panel(element)
    elif own.startswith("matplotlib.axis_") or (
        plate and tag == "text" and not within(element, plate)
    ):
        plate = None
    attributes = {}
    for key, value in element.attrib.items():
        key = local(key)
        if key not in ATTRIBUTES:
            continue
        if key in SOURCES and not SOURCES[key].match(value):
            continue
        if key == "style":
            value = restyled(value, keep=plate is not None, text=tag == "text")
        elif key in ("d", "x", "y", "width", "height"):
            value = " ".join(
                re.sub(
                    r"-?\d+\.\d+",
                    lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."),
                    value,
                ).split()
            )
        elif key == "transform":
            value = (
                ""
                if value.startswith("rotate(-0 ")
                else re.sub(r"-?\d+\.\d{4,}", lambda found: f"{float(found[0]):.3f}", value)
            )
        if key in ("clip-path", "style", "href") and not value.startswith("data:"):
            value = REFERENCE.sub(
                lambda found: f"#{name}-{found[1]}" if not colour(found[0]) else found[0], value
            )
        elif key == "id":
            value = f"{name}-{value}"
        if value:
            attributes[key] = value
    copy = Tree.Element(tag, attributes)
    copy.text = element.text if tag in ("text", "tspan") else None
    for child in element:
        copy.extend(kept(child, name, plate))
    return [copy]


def panel(axes: Tree.Element) -> tuple[float, float] | None:
    """Top and bottom of axes with a picture in them; None for those without."""
    if not any(
        local(child.tag) == "image" or child.get("id", "").startswith("QuadMesh")
        for child in axes.iter()
    ):
        return None
    patch = next((path.get("d", "") for path in axes.iter() if local(path.tag) == "path"), "")
    heights = [float(y) for _, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", patch)]
    return (min(heights), max(heights)) if heights else None


def within(text: Tree.Element, plate: tuple[float, float]) -> bool:
    return plate[0] <= float(text.get("y", "nan")) <= plate[1]


def restyled(style: str, keep: bool, text: bool) -> str:
    """Greys as so much of the page's ink, white as its paper, and Okabe and Ito's colours as the
    page has them.
    """
    found = dict(properties(style))
    if keep and text:
        found.setdefault("fill", "#000000")
    for kind in () if keep else ("fill", "stroke"):
        value = found.get(kind, "").lower()
        if value in COLOURS:
            found[kind] = f"var(--{COLOURS[value]}, {value})"
        elif value == "#ffffff":
            found[kind] = "var(--paper, #fff)"
        elif re.fullmatch(r"#([0-9a-f]{2})\1\1", value):
            found[kind] = "currentColor"
            share = (1 - int(value[1:3], 16) / 255) * float(found.get(f"{kind}-opacity", 1))
            if share < 1:
                found[f"{kind}-opacity"] = f"{share:.3g}"
    return ";".join(f"{key}:{value}" for key, value in found.items())


def properties(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in PROPERTIES and SAFE.fullmatch(value):
            yield key, value


def referred(element: Tree.Element) -> Iterator[str]:
    """Ids that an element refers to."""
    for key in ("href", "clip-path", "style"):
        if not element.get(key, "").startswith("data:"):
            yield from REFERENCE.findall(element.get(key, ""))


def colour(text: str) -> bool:
    return re.fullmatch(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})", text) is not None


def local(name: str) -> str:
    """Without its namespace."""
    return name.rsplit("}", 1)[-1]
