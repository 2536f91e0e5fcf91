"""What a row must satisfy: a JSON Schema, a regular expression, a Python file or a judge."""

from __future__ import annotations

import importlib.util
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.contracts import FieldPath
from llmpipe.errors import StageError
from llmpipe.formats.json_schema import json_value, mismatch, schema_problem
from llmpipe.stages.generate.judge import Judge

KINDS = ("schema", "pattern", "python", "judge")
"""The fields of a validator of which one says what it tests."""

FUNCTION = "validate"
"""The function of a Python file that tests a row."""


class Validator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A test of each row: exactly one of schema, pattern, python, judge."""

    column: str | None = None
    """The column that is tested; a Python file tests the whole row."""
    schema: dict[str, Any] | None = None
    """A JSON Schema of the column; a text is read as JSON first."""
    pattern: str | None = None
    """A regular expression that the column must contain; `^` and `$` anchor it."""
    python: str | None = None
    """A Python file with a function `validate(row)`, which returns None for a good row, or the
    reason why it is rejected."""
    judge: Judge | None = None
    """A rubric by which the teacher scores the column."""

    def problems(self, temperature: float) -> Iterator[tuple[FieldPath, str]]:
        """List what does not go together, as (field, message)."""
        made = [name for name in KINDS if getattr(self, name) is not None]
        if len(made) != 1:
            has = f"it has {' and '.join(made)}" if made else "it has none of them"
            yield (), f"a validator has exactly one of {', '.join(KINDS)}; {has}"
        elif self.python is not None and self.column is not None:
            yield ("column",), "has no effect: a Python file tests the whole row"
        elif self.python is None and self.column is None:
            yield ("column",), "is missing: which column is tested?"
        if self.schema is not None and (problem := schema_problem(self.schema)):
            yield ("schema",), problem
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                yield ("pattern",), f"is not a regular expression: {error}"
        for field, message in self.judge.problems(temperature) if self.judge else ():
            yield ("judge", field), message


def failed_test(
    validator: Validator, row: Mapping[str, Any], function: Callable[[Any], Any] | None
) -> tuple[str, str] | None:
    """Return why a row fails a validator that takes no judge, with a detail; or None.

    Raises:
        StageError: The Python file raises an exception, or returns what is not a reason.
    """
    if function is not None:
        reason = _asked(function, row)
        return ("python validator", reason) if reason else None
    value = row[validator.column or ""]
    if validator.pattern is not None:
        found = re.search(validator.pattern, as_text(value))
        return None if found else ("pattern", f"{validator.column}: {as_text(value)[:200]}")
    if validator.schema is not None:
        try:
            value = json_value(value) if isinstance(value, str) else value
        except ValueError as error:
            return "schema", f"{validator.column}: not JSON: {error}"
        problem = mismatch(validator.schema, value)
        return ("schema", f"{validator.column}: {problem}") if problem else None
    return None


def as_text(value: Any) -> str:
    """Return a column as text, JSON values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def load_function(path: Path, label: str) -> Callable[[Any], Any]:
    """Return the function `FUNCTION` of a Python file.

    Raises:
        StageError: The file cannot be run, or has no such function.
    """
    spec = importlib.util.spec_from_file_location(f"llmpipe_validator_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise StageError(f"{label} is not a Python file", hint="its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise StageError(f"{label}{_line(error, path)}: {_told(error)}") from None
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise StageError(
            f"{label} has no function {FUNCTION!r}",
            hint=f"def {FUNCTION}(row): return None, or the reason why the row is rejected",
        )
    found: Callable[[Any], Any] = function
    return found


def _asked(function: Callable[[Any], Any], row: Mapping[str, Any]) -> str:
    """Return the reason that a person's function gives, or an empty text."""
    path = Path(function.__code__.co_filename) if hasattr(function, "__code__") else Path()
    try:
        reason = function(json.loads(json.dumps(row)))  # a copy: it tests, and changes nothing
    except Exception as error:
        raise StageError(
            f"{path.name}{_line(error, path)}: {_told(error)}",
            hint=f"{FUNCTION}(row) must not raise an exception, whatever is in the row",
        ) from None
    if reason is None or isinstance(reason, str):
        return reason or ""
    raise StageError(
        f"{path.name}: {FUNCTION} returned {reason!r}",
        hint="return None for a good row, or a text: the reason why it is rejected",
    )


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == path.name]
    return f":{lines[-1]}" if lines else ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
