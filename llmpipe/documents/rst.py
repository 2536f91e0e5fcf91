"""Convert reStructuredText, including that of Sphinx, to text with Markdown headings and code.

docutils leaves out what it does not know, with a warning. Here, an unknown role becomes its text,
and an unknown directive its argument and content. Other files are never included.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from llmpipe.documents.parts import Converted, clean, sections_of
from llmpipe.documents.plain import decode
from llmpipe.errors import StageError

SETTINGS = {
    "_disable_config": True,  # ignore the machine's docutils.conf
    "doctitle_xform": False,  # the document title stays a section
    "docinfo_xform": False,
    "file_insertion_enabled": False,
    "halt_level": 5,
    "input_encoding": "unicode",
    "line_length_limit": 10_000_000,
    "raw_enabled": False,
    "report_level": 5,
    "smart_quotes": False,
    "syntax_highlight": "none",
}

DROPPED = {
    "codeauthor", "currentmodule", "default-domain", "highlight", "index", "literalinclude",
    "module", "moduleauthor", "sectionauthor", "tabularcolumns", "toctree",
}  # fmt: skip
"""Sphinx directives without text for a reader."""

CODE = {
    "code", "code-block", "doctest", "ipython", "math", "productionlist", "prompt", "sourcecode",
    "testcode", "testoutput",
}  # fmt: skip
"""Directives whose content is kept as it is."""

OTHER_IN_SPHINX = {"class", "code", "code-block", "math", "sourcecode"}
"""Directives that docutils also knows, with another meaning or fewer options."""

SIGNATURES = {
    "attribute", "class", "classmethod", "cmdoption", "data", "decorator", "decoratormethod",
    "describe", "enum", "envvar", "exception", "function", "macro", "member", "method", "object",
    "opcode", "option", "pdbcommand", "property", "staticmethod", "struct", "type", "var",
}  # fmt: skip
"""Directives whose argument is code."""

LABELS = {
    "availability": "Availability:",
    "deprecated": "Deprecated since version",
    "deprecated-removed": "Deprecated; versions",
    "impl-detail": "Implementation detail:",
    "seealso": "See also:",
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
}
"""Text that Sphinx directives print before their argument."""

ROOM = 1_000_000
"""Limit of characters that the substitutions of any text may add, however short."""

_TARGET = re.compile(r"(?s)(.+?)\s*(?<!\\)<[^<>]*>")
_COLUMN = re.compile("-+")
_DOMAIN = re.compile(r"^(?:py|c|cpp|js|rst|std):")


def convert(data: bytes, label: str) -> Converted:
    """Convert reStructuredText.

    Raises:
        StageError: it is not text, docutils cannot read it, or substitutions make it too long.
    """
    from docutils.core import publish_doctree

    from llmpipe.documents.rst_writer import written

    decoded = decode(data, label)
    source = clean(decoded.text)
    try:
        with _accept_everything() as lost, _limit_substitutions(ROOM + 100 * len(source), label):
            tree = publish_doctree(source, settings_overrides=SETTINGS)
        text, headings = written(tree)
    except StageError:
        raise
    except Exception as error:  # docutils has no error class for what it cannot read
        raise StageError(
            f"{label} cannot be read as reStructuredText: {type(error).__name__}: {error}",
            hint="leave it out with `exclude`",
        ) from None
    title = next((heading.title for heading in headings), "")
    remarks = [*decoded.remarks, *([f"not read in tables: {', '.join(lost)}"] if lost else [])]
    return Converted(text, sections_of(text, headings), title, remarks=tuple(remarks))


@contextlib.contextmanager
def _accept_everything() -> Iterator[list[str]]:
    """Make docutils accept unknown roles and directives inside this context.

    It also accepts rows of simple tables whose first cell is blank, and keeps malformed tables as
    they are written. Yields a list to which table lines are added that it drops nevertheless.
    """
    from docutils.parsers.rst import directives, roles, states, tableparser

    known_directive, known_role = directives.directive, roles.role
    unknown_directive = _unknown_directive()

    def directive(name: str, language: Any, document: Any) -> tuple[Any, list[Any]]:
        if _plain_name(name) in OTHER_IN_SPHINX:
            return unknown_directive, []
        found, _ = known_directive(name, language, document)
        options = getattr(found, "option_spec", None)
        if options:
            found = type(found.__name__, (found,), {"option_spec": _AnyOption(options)})
        return found or unknown_directive, []

    def role(name: str, language: Any, line: int, reporter: Any) -> tuple[Any, list[Any]]:
        found, _ = known_role(name, language, line, reporter)
        return found or _unknown_role, []

    def malformed_table(*found: Any, **options: Any) -> list[Any]:
        return _source_of(known_malformed(*found, **options))

    lost: list[str] = []
    known_parser = tableparser.SimpleTableParser
    known_malformed = states.Body.malformed_table
    directives.directive, roles.role = directive, role
    tableparser.SimpleTableParser = _table_parser(known_parser, lost)
    states.Body.malformed_table = malformed_table
    try:
        yield lost
    finally:
        directives.directive, roles.role = known_directive, known_role
        tableparser.SimpleTableParser = known_parser
        states.Body.malformed_table = known_malformed


@contextlib.contextmanager
def _limit_substitutions(most: int, label: str) -> Iterator[None]:
    """Limit the text that docutils inserts for substitutions, which may be nested.

    A node counts as 50 characters, since some have no text.
    """
    from docutils import nodes

    left, copied = most, nodes.substitution_definition.deepcopy

    def deepcopy(definition: Any) -> Any:
        nonlocal left
        left -= len(definition.astext()) + 50 * sum(1 for _ in definition.findall())
        if left < 0:
            raise StageError(
                f"{label} grows by substitutions to more than {most:,} characters",
                hint="leave it out with `exclude`",
            )
        return copied(definition)

    nodes.substitution_definition.deepcopy = deepcopy
    try:
        yield
    finally:
        del nodes.substitution_definition.deepcopy  # restores the inherited method


def _table_parser(known: Any, lost: list[str]) -> Any:
    """Return a parser of simple tables that drops only lines that span columns.

    A line with a blank first cell continues the row above. If there is none, docutils drops the
    line, which often contains the column names. A backslash in the cell begins a row and is not
    displayed. Dropped lines are added to ``lost``.
    """

    class TableParser(known):  # type: ignore[misc, unused-ignore]
        def parse_table(self) -> None:
            border, *_ = layouts = self._layouts()
            (first, end), begins = border[0], True
            for at, line in enumerate(self.block[1:], 1):
                margins = (line[left[1] : right[0]] for left, right in pairwise(layouts[at]))
                if not begins or not line.strip() or line[first:end].strip():
                    pass
                elif any(map(str.strip, margins)):
                    lost.append(repr(line.strip()))
                    continue
                else:
                    self.block[at] = f"{line[:first]}\\{line[first + 1 :]}"
                if line.strip():
                    begins = self.span_pat.match(line) is not None
            super().parse_table()

        def _layouts(self) -> list[list[tuple[int, int]]]:
            """Return for each line where the cells of its row begin and end."""
            border = layout = _cells(self.block[0])
            found = []
            for line in reversed(self.block):
                is_border = self.span_pat.match(line) is not None
                layout = _cells(line) if is_border else layout
                found.append(layout)
                if not is_border and line[slice(*border[0])].strip():
                    layout = border  # the row above ends here
            return found[::-1]

    return TableParser


def _source_of(messages: list[Any]) -> list[Any]:
    """Return the source that docutils puts into its messages about an unreadable table."""
    from docutils import nodes

    return [node for message in messages for node in message.findall(nodes.literal_block)]


def _cells(border: str) -> list[tuple[int, int]]:
    return [cell.span() for cell in _COLUMN.finditer(border)]


def _plain_name(name: str) -> str:
    return _DOMAIN.sub("", name.lower())


def _unknown_role(
    name: str, raw: str, text: str, line: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[Any], list[Any]]:
    """Return what a reference displays: its title, or the name without the marks before it."""
    from docutils import nodes
    from docutils.utils import unescape

    titled = _TARGET.fullmatch(text)
    return [nodes.Text(unescape(titled[1] if titled else text.lstrip("~!")))], []


class _AnyOption(dict[str, Any]):
    """The options of a directive; any other option is accepted with its value unchanged."""

    def __bool__(self) -> bool:
        return True

    def __missing__(self, name: str) -> Any:
        return lambda value: value


def _unknown_directive() -> Any:
    from docutils import nodes
    from docutils.parsers.rst import Directive

    class UnknownDirective(Directive):  # type: ignore[misc, unused-ignore]
        optional_arguments = 1
        final_argument_whitespace = True
        option_spec = _AnyOption()
        has_content = True

        def run(self) -> list[Any]:
            name = _plain_name(self.name)
            argument = self.arguments[0] if self.arguments else ""
            if name in DROPPED:
                return []
            if name in CODE:
                code = "\n".join(self.content) or argument
                language = argument if self.content and name != "math" else ""
                return [nodes.literal_block(code, code, language=language)]
            found = []
            if argument or name in LABELS:
                found.append(self._heading(name, argument))
            inner = nodes.container()
            self.state.nested_parse(self.content, self.content_offset, inner)
            return [*found, *inner.children]

        def _heading(self, name: str, argument: str) -> Any:
            if name in SIGNATURES:
                signatures = [line.strip() for line in argument.splitlines()]
                parts = [nodes.literal(line, line) for line in signatures if line]
                spaced = [node for part in parts for node in (nodes.Text("\n"), part)][1:]
                return nodes.paragraph("", "", *spaced)
            words, _ = self.state.inline_text(argument, self.lineno)
            label = f"{LABELS[name]} " if name in LABELS else ""
            return nodes.paragraph("", "", nodes.Text(label), *words)

    return UnknownDirective
