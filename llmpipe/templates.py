"""Render HTML and SVG with Jinja2, so that text from a user never becomes markup.

Every value is escaped on its way into a template. Characters that no document may contain (control
characters, halves of surrogate pairs) become U+FFFD. A name that a template misses is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

_SYNTAX: Mapping[str, Any] = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
"""The settings on which compiled templates depend."""

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def environment(package: str, **filters: Callable[..., Any]) -> Environment:
    """Return what renders the templates in a package's folder ``templates``.

    Args:
        package: the package that owns the templates.
        filters: what the templates can pass values through, by name.
    """
    found = Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        finalize=_fit,
        auto_reload=False,
        bytecode_cache=_CompiledTemplates(),
        **_SYNTAX,
    )
    found.filters |= {"coordinate": coordinate, **filters}
    return found


class _CompiledTemplates(BytecodeCache):
    """Compiled templates, in a ``__pycache__`` next to the templates, as Python keeps modules.

    To compile those of a report takes longer than the rest of a short run. Where the folder cannot
    be written, they are compiled each time.
    """

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        """Return the path of the compiled template."""
        return cache_from_source(f"{filename or name}.py")

    def get_source_checksum(self, source: str) -> str:
        """Return a digest of all that a compiled template depends on."""
        made_of = (source, jinja2.__version__, sorted(_SYNTAX.items()))
        return hashlib.sha256(repr(made_of).encode()).hexdigest()

    def load_bytecode(self, bucket: Bucket) -> None:
        """Read a compiled template if it is current."""
        with contextlib.suppress(Exception):  # missing or damaged: the template is compiled
            bucket.bytecode_from_string(Path(bucket.key).read_bytes())

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Store a compiled template if possible."""
        if sys.dont_write_bytecode:
            return
        target = Path(bucket.key)
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        try:
            target.parent.mkdir(exist_ok=True)
            unfinished.write_bytes(bucket.bytecode_to_string())
            unfinished.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def coordinate(value: float) -> str:
    """Write a coordinate of a drawing with six digits at most."""
    return f"{value:.6g}"


def _fit(value: object) -> object:
    """Return a value as text that a document may contain; markup stays as it is."""
    return value if isinstance(value, Markup) else _UNFIT.sub("\ufffd", str(value))
