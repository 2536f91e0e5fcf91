"""Templates of a spec: Jinja in its sandbox, with an end to every loop and the same text each time.

A template sees the columns of its row and nothing else: no attribute of Python's own objects, no
file, no other template. What could run long is counted: the steps of loops and the calls of macros,
and the length of texts. What differs from run to run, such as the filter ``random``, is removed.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmpipe.errors import StageError
from llmpipe.stages.generate.methods.template.bounds import (
    FILTERS,
    LONGEST,
    REFUSED_FILTERS,
    REFUSED_METHODS,
    StoppedError,
    check_operation,
    short,
)

STEPS = 10_000
"""Steps of all loops, and calls of macros, in one rendering of a template."""

_GLOBALS = ("range", "dict")
_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which a single operation cannot take all of the memory."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right`` if the result is not too large."""
        check_operation(operator, left, right)
        return short(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use an attribute."""
        if attr in REFUSED_METHODS and isinstance(obj, str | int):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Return what says that an attribute cannot be used."""
        if attribute not in REFUSED_METHODS:
            return super().unsafe_undefined(obj, attribute)
        instead = f"`|{attribute}`" if attribute in FILTERS else "`'%9s' % text`"
        return self.undefined(
            f"the method {attribute!r} is not available: write {instead}", exc=SecurityError
        )

    def wrap_str_format(self, value: Any) -> None:
        """Leave the method ``format`` of texts as it is: it is refused."""


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
        every = environment.filters.items()
        environment.filters = {k: v for k, v in every if k not in REFUSED_FILTERS} | {**FILTERS}
        environment.filters |= {"_counted": self._counted, "_called": self._called}
        environment.filters["_short"] = short
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
            return str(short("".join(self._pieces(columns))))
        except StoppedError as error:
            raise StageError(
                f"{_line(error)}stopped: {error}", hint="a template may not loop for so long"
            ) from None
        except RecursionError:
            raise StageError("stopped: a macro calls itself without an end") from None
        except MemoryError as error:
            raise StageError(f"{_line(error)}stopped: it needs more memory than there is") from None
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise StageError(f"{_line(error)}{error}") from None

    def _pieces(self, columns: Mapping[str, Any]) -> Iterator[str]:
        length = 0
        for piece in self._template.generate(columns):
            length += len(piece)
            if length > LONGEST:
                raise StoppedError(f"the text has more than {LONGEST:,} characters")
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
            raise StoppedError(f"its loops took more than {STEPS:,} steps")


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


def _line(error: BaseException) -> str:
    """Return the line of the template at which an error occurred, as the start of a message."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
    return f"line {lines[-1]}: " if lines else ""
