"""Figures as text that stands in a page, or as files beside a text."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib as mpl
from matplotlib.figure import Figure

from gatewise.lab.report.figures import INK, LOOK

_SVG: dict[Any, Any] = {"svg.fonttype": "none", "path.simplify_threshold": 0.4}
_OFTEN = 3  # a style that stands there as often is named once


def svg(figure: Figure, title: str) -> str:
    """The <svg> element: small, in the page's own colours and letters.

    Its inner names are its own, so that several stand in one page.
    """
    out = io.StringIO()
    with mpl.rc_context({**LOOK, **_SVG, "svg.hashsalt": title}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(out.getvalue().replace(INK, "currentColor"))
    _strip(root)
    _flatten(root)
    _rename(root, f"p{_digest(title)}")
    _share_styles(root)
    root.attrib = {"role": "img", "aria-label": title, "viewBox": root.attrib["viewBox"]}
    return ElementTree.tostring(root, encoding="unicode")


def png(figure: Figure) -> bytes:
    """A PNG that is sharp on a dense screen."""
    out = io.BytesIO()
    with mpl.rc_context(LOOK):
        figure.savefig(out, format="png", dpi=200)
    return out.getvalue()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _strip(root: Element) -> None:
    """Leave out namespaces, white space, needless digits, and the letters' names."""
    for e in root.iter():
        e.tag = e.tag.partition("}")[2]
        e.tail = None
        e.text = e.text if e.tag in ("text", "tspan") else None
        e.attrib = {n.partition("}")[2] or n: v for n, v in e.attrib.items()}
        for name, value in e.attrib.items():
            if name in ("d", "x", "y", "transform", "points"):
                e.attrib[name] = re.sub(r"(\d\.\d)\d+", r"\1", value)
        if "d" in e.attrib:
            e.attrib["d"] = _path(e.attrib["d"])
        if "style" in e.attrib:
            given = [part.strip() for part in e.attrib["style"].split(";")]
            kept = [p.replace(": ", ":") for p in given if p and not p.startswith("font-family")]
            e.attrib["style"] = ";".join(kept)
        if e.attrib.get("transform", "").startswith("rotate(-0 "):
            del e.attrib["transform"]


def _path(d: str) -> str:
    d = re.sub(r"\s*([MLCQz])\s*", r"\1", d)
    d = d if "C" in d or "Q" in d else d.replace("L", " ")  # a line is what follows a move
    return d.strip()


def _flatten(e: Element) -> None:
    """Put what groups without a meaning contain in their place; drop what is not drawn."""
    found: list[Element] = []
    for child in e:
        _flatten(child)
        if child.tag == "g" and not child.attrib.keys() - {"id"}:
            found += list(child)
        elif child.tag not in ("metadata", "style") and child.attrib.get("style") != "fill:none":
            found.append(child)
    e[:] = found


def _rename(root: Element, own: str) -> None:
    """Keep the names that something refers to, and make them this picture's own."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    names = {n for pair in used for n in pair if n}
    for e in root.iter():
        if "id" in e.attrib:
            name = e.attrib.pop("id")
            e.attrib |= {"id": f"{own}-{name}"} if name in names else {}
        for key, value in e.attrib.items():
            e.attrib[key] = re.sub(r"^#|url\(#", lambda m: f"{m[0]}{own}-", value)


def _share_styles(root: Element) -> None:
    """Give a style that stands there often a name; the same one in every picture."""
    count = Counter(e.attrib["style"] for e in root.iter() if "style" in e.attrib)
    named = {style: f"s{_digest(style)}" for style, n in count.items() if n >= _OFTEN}
    for e in root.iter():
        if e.attrib.get("style") in named:
            e.attrib["class"] = named[e.attrib.pop("style")]
    sheet = ElementTree.SubElement(root, "style")
    sheet.text = "".join(f".{name}{{{style}}}" for style, name in named.items())
