"""Read front matter above a Markdown text: YAML between ``---`` lines, TOML between ``+++`` lines.

Some front matter cannot be parsed (``title: {{ x }}``, a colon in a title). Such a value is kept as
text and reported; it never becomes part of the document. A value that YAML 1.1 would convert
(``1.20``, ``NO``, ``12:30``) is kept as text, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from llmpipe.yaml_depth import load_bounded

_YAML = re.compile(r"---[ \t]*\n((?:.*\n)*?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_TOML = re.compile(r"\+\+\+[ \t]*\n((?:.*\n)*?)\+\+\+[ \t]*(?:\n|\Z)")
_YAML_KEY = re.compile(r"""(?P<key>[^\W\d][\w .-]*|"[^"\n]+"|'[^'\n]+')[ \t]*:(?:[ \t]|$)""")
_TOML_KEY = re.compile(r"""(?P<key>[\w.-]+|"[^"\n]+"|'[^'\n]+')[ \t]*=""")


class FrontMatter(NamedTuple):
    """The values, their length in characters of the text, and remarks about unparsed values."""

    values: Mapping[Any, Any] = {}
    length: int = 0
    remarks: tuple[str, ...] = ()


def read(text: str) -> FrontMatter:
    """Return the front matter of a text; its length is 0 if there is none."""
    for kind, pattern, key, parse in (
        ("YAML", _YAML, _YAML_KEY, _yaml),
        ("TOML", _TOML, _TOML_KEY, _toml),
    ):
        match = pattern.match(text)
        if match:
            found = _values(match[1], key, parse)
            if found is not None:
                values, as_text = found
                return FrontMatter(values, match.end(), _remarks(kind, as_text))
    return FrontMatter()


def _remarks(kind: str, as_text: list[str]) -> tuple[str, ...]:
    if not as_text:
        return ()
    return (f"front matter that is not valid {kind} is kept as text: {', '.join(as_text)}",)


def _values(
    block: str, key: re.Pattern[str], parse: Callable[[str], Any]
) -> tuple[Mapping[Any, Any], list[str]] | None:
    """Return the values of a block and the names of those kept as text; None for other text."""
    found = parse(block)
    if isinstance(found, dict):
        return found, []
    if not block.strip():
        return {}, []
    entries = _entries(block, key)
    if entries is None:
        return None
    values: dict[Any, Any] = {}
    as_text: list[str] = []
    for name, entry in entries:
        one = parse(entry)
        if isinstance(one, dict):
            values |= one
        else:
            values[name] = _written(entry, key)
            as_text.append(name)
    return values, as_text


def _entries(block: str, key: re.Pattern[str]) -> list[tuple[str, str]] | None:
    """Return the entries of a block with their names; None if it does not begin with one."""
    entries: list[tuple[str, str]] = []
    for line in block.splitlines(keepends=True):
        match = key.match(line)
        if match:
            entries.append((match["key"].strip("\"'"), line))
        elif entries:
            entries[-1] = (entries[-1][0], entries[-1][1] + line)
        elif line.strip() and not line.startswith("#"):
            return None
    return entries or None


def _written(entry: str, key: re.Pattern[str]) -> str:
    """Return the value of an entry as written, without surrounding quotes."""
    match = key.match(entry)
    value = " ".join(entry[match.end() if match else 0 :].split())
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _yaml(block: str) -> Any:
    import yaml

    try:
        return load_bounded(block, _loader())
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


@cache
def _loader() -> Any:
    """Return a loader that converts only plain numbers, true, false and null."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("Loader", (base,), {"yaml_implicit_resolvers": {}})
    for kind, pattern, first in (
        ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
        ("float", r"-?[0-9]+(?:\.[0-9]+)?\Z", "-0123456789"),
        ("merge", r"<<\Z", "<"),
        ("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ):
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(pattern), list(first))
    loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: _number(node.value))
    return loader


def _number(written: str) -> int | float | str:
    """Return a number if it would be written the same way, else the text: 1.20 is not 1.2."""
    for kind in (int, float):
        try:
            number = kind(written)
        except ValueError:
            continue
        if str(number) == written:
            return number
    return written


def _toml(block: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(block, parse_float=_number)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
