"""Render the templates in the folder ``templates``, and format values for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from llmpipe.graph.render import point_words
from llmpipe.report.axis import moment_text
from llmpipe.runner.messages import seconds_text, size_text
from llmpipe.templates import environment

NOTHING = Markup("")
"""The content of an empty section. No template is compiled for it."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; it is left out if it has no content."""

    id: str
    title: str
    content: Markup


def render(template: str, **values: Any) -> Markup:
    """Render a template. Values that are not markup are escaped."""
    return Markup(_environment().get_template(template).render(values).strip())


def number(value: float) -> str:
    """Format a number for reading."""
    if isinstance(value, int) or (value == int(value) and 100 <= abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def interval(ends: tuple[float, float], sign: str = "") -> str:
    """Format an interval for reading; with the sign ``+``, positive ends have one."""
    low, high = ends
    return f"[{fixed(low, sign)}, {fixed(high, sign)}]"


def fixed(value: float, sign: str = "") -> str:
    """Format a number with three decimals, a whole one without; ``+`` shows the sign of both."""
    text = f"{value:{sign}}" if isinstance(value, int) else f"{value:{sign}.3f}"
    return text.replace("-", "−")


def versions(tools: Mapping[str, str | None]) -> str:
    """Return the tools with their versions; those that were not installed are left out."""
    return ", ".join(f"{name} {version}" for name, version in tools.items() if version)


@cache
def _environment() -> Environment:
    return environment(
        "llmpipe.report",
        number=number,
        fixed=fixed,
        interval=interval,
        seconds=seconds_text,
        size=size_text,
        moment=moment_text,
        point=point_words,
        versions=versions,
        file_name=lambda path: PurePath(path).name,
    )
