"""Templates of a spec: Jinja in its sandbox, with an end to every loop and the same text each time.

A template sees the columns of its row and nothing else: no attribute of Python's own objects, no
file, no other template. What could run long is counted: the steps of loops and the calls of macros,
and the length of texts. What differs from run to run, such as the filter ``random``, is removed.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmpipe.errors import StageError

STEPS = 10_000
"""Steps of all loops, and calls of macros, in one rendering of a template."""

LONGEST = 1_000_000
"""Characters of a text, at most, and bits of a number."""

_GLOBALS = ("range", "dict")
_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class _StoppedError(Exception):
    """A template that ran too long."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which a single operation cannot take all of the memory."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right`` if the result is not too large."""
        if operator == "*" and _size(left) * max(_amount(right), 0) > LONGEST:
            raise _StoppedError(f"a text or list is repeated to more than {LONGEST:,} items")
        if operator == "*" and _size(right) * max(_amount(left), 0) > LONGEST:
            raise _StoppedError(f"a text or list is repeated to more than {LONGEST:,} items")
        if operator == "**" and _bits(left) * abs(right) > LONGEST:
            raise _StoppedError(f"a number has more than {LONGEST:,} bits")
        return _short(super().call_binop(context, operator, left, right))


class Template:
    """A template with the names of the columns that it reads.

    Raises:
        StageError: It is not a template, or needs what the sandbox does not have.
    """

    def __init__(self, text: str) -> None:
        self._left = 0
        environment = _Environment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        environment.globals = {name: environment.globals[name] for name in _GLOBALS}
        environment.filters = {k: v for k, v in environment.filters.items() if k != "random"}
        environment.filters |= {"_counted": self._counted, "_called": self._called}
        environment.filters |= {"_short": _short, "tojson": _json}
        try:
            tree = environment.parse(text)
            self.reads = _names_read(environment, tree)
            _bound(tree)
            self._template = environment.from_string(tree)
        except TemplateSyntaxError as error:
            raise StageError(f"line {error.lineno}: {error.message}") from None
        except TemplateError as error:
            raise StageError(str(error.message or error)) from None

    def render(self, columns: Mapping[str, Any]) -> str:
        """Return the text for a row.

        Raises:
            StageError: A value is missing or of the wrong kind, or the template ran too long.
        """
        self._left = STEPS
        try:
            return str(_short("".join(self._pieces(columns))))
        except _StoppedError as error:
            raise StageError(
                f"{_line(error)}stopped: {error}", hint="a template may not loop for so long"
            ) from None
        except RecursionError:
            raise StageError("stopped: a macro calls itself without an end") from None
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise StageError(f"{_line(error)}{error}") from None

    def _pieces(self, columns: Mapping[str, Any]) -> Iterator[str]:
        length = 0
        for piece in self._template.generate(columns):
            length += len(piece)
            if length > LONGEST:
                raise _StoppedError(f"the text has more than {LONGEST:,} characters")
            yield piece

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._count()
            yield item

    def _called(self, text: str) -> str:
        self._count()
        return text

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _StoppedError(f"its loops took more than {STEPS:,} steps")


def _names_read(environment: _Environment, tree: nodes.Template) -> dict[str, int]:
    """Return the names that a template takes from its row, each with its first line."""
    names = meta.find_undeclared_variables(tree) - environment.globals.keys()
    found: dict[str, int] = {}
    for node in tree.find_all(nodes.Name):
        if node.ctx == "load" and node.name in names:
            found.setdefault(node.name, node.lineno)
    return found


def _bound(tree: nodes.Template) -> None:
    """Count the steps of loops and the calls of macros; refuse what cannot be counted."""
    for node in tree.find_all(_REFUSED):
        raise StageError(f"line {node.lineno}: a template cannot read another one")
    for loop in list(tree.find_all(nodes.For)):
        if loop.recursive:
            raise StageError(f"line {loop.lineno}: a loop cannot be recursive")
        loop.iter = _passed(loop.iter, "_counted")
    macros: list[nodes.Macro | nodes.CallBlock] = [*tree.find_all(nodes.Macro)]
    for macro in [*macros, *tree.find_all(nodes.CallBlock)]:
        macro.body.insert(
            0, nodes.Output([_passed(nodes.Const(""), "_called")], lineno=macro.lineno)
        )
    _shorten(tree)


def _shorten(node: nodes.Node) -> None:
    """Check the length of what ``~`` joins, below a node."""
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Concat):
            setattr(node, name, _passed(value, "_short"))
            _shorten(value)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, nodes.Node):
                    _shorten(item)
                if isinstance(item, nodes.Concat):
                    value[index] = _passed(item, "_short")
        elif isinstance(value, nodes.Node):
            _shorten(value)


def _passed(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno or 1)


def _short(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > LONGEST:
        raise _StoppedError(f"a text or list has more than {LONGEST:,} items")
    return value


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _amount(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _json(value: Any, indent: int | None = None) -> str:
    """Return JSON as rows have it; Jinja's own filter escapes what HTML cannot hold."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _line(error: BaseException) -> str:
    """Return the line of the template at which an error occurred, as the start of a message."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
    return f"line {lines[-1]}: " if lines else ""
