"""Render the templates in the folder ``templates``, with values as people read them."""

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
"""The content of a section that has nothing to show. No template is compiled for it."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; one without content is left out."""

    id: str
    title: str
    content: Markup


def render(template: str, **values: Any) -> Markup:
    """Render a template. Whatever is no markup yet is escaped."""
    return Markup(_environment().get_template(template).render(values).strip())


def number(value: float) -> str:
    """Return a number as a person reads it."""
    if isinstance(value, int) or (value == int(value) and 100 <= abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def interval(ends: tuple[float, float], sign: str = "") -> str:
    """Return an interval as a person reads it; with the sign ``+``, positive ends have one."""
    low, high = ends
    return f"[{fixed(low, sign)}, {fixed(high, sign)}]"


def fixed(value: float, sign: str = "") -> str:
    """Return a number with three decimals; with the sign ``+``, a positive one has it."""
    return f"{value:{sign}.3f}".replace("-", "−")


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
