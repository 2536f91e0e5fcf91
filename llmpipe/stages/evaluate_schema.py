"""Enforce a JSON Schema on the answers of a GGUF, and check that llama.cpp did.

llama.cpp decodes with llguidance, which ignores a schema that it cannot compile; llama.cpp then
answers freely with status 200. So the server is tried before the first row, and every answer that
was not cut is validated.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmpipe.backends.reasoning import Reply
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer

UNHELD = (
    "llama.cpp knows no uniqueItems, not, if, contains, propertyNames, dependentRequired or "
    "unevaluatedProperties, no $ref that is broken or points to another file, no oneOf whose "
    "choices overlap (write anyOf), no lookaround in a pattern and few formats; avoid these"
)
"""The known reasons why llama.cpp ignores a schema (xllamacpp 2.1.0)."""


class HeldSchema:
    """A JSON Schema from a file, which llama.cpp enforces on answers."""

    def __init__(self, file: Artifact) -> None:
        """Read the file.

        Raises:
            StageError: it does not contain a JSON Schema.
        """
        import jsonschema

        self.label = file.label
        try:
            text = file.path.read_text("utf-8")
            self.schema: dict[str, Any] = json.loads(text)
        except (OSError, ValueError) as error:
            raise StageError(f"{self.label}: not a JSON Schema: {error}") from None
        if not isinstance(self.schema, dict):
            raise StageError(f"{self.label}: not a JSON Schema: it must be an object")
        kind = jsonschema.validators.validator_for(self.schema, jsonschema.Draft202012Validator)
        try:
            kind.check_schema(self.schema)
        except jsonschema.SchemaError as error:
            raise StageError(
                f"{self.label}: not a JSON Schema: {error.json_path}: {error.message}"
            ) from None
        self._validator = kind(_exact(text))

    def require_held(self, server: LlamaServer) -> None:
        """Check that a server enforces the schema.

        Raises:
            StageError: it drops the schema.
        """
        if not server.holds(self.schema):
            raise StageError(
                f"{self.label}: llama.cpp ignores this schema and would answer freely", hint=UNHELD
            )

    def require_followed(self, reply: Reply, place: str) -> None:
        """Check that an answer follows the schema, unless the reply was cut.

        Args:
            reply: What the model wrote.
            place: Which row it answers, for messages.

        Raises:
            StageError: it does not.
        """
        if reply.truncated or reply.unfinished:
            return
        if problem := self._problem(reply.answer):
            raise StageError(
                f"{place}: the answer {reply.answer[:80]!r} does not follow {self.label}: "
                f"{problem}: llama.cpp did not enforce the schema",
                hint=UNHELD,
            )

    def _problem(self, answer: str) -> str | None:
        import jsonschema

        try:
            found = jsonschema.exceptions.best_match(self._validator.iter_errors(_exact(answer)))
        except ValueError as error:
            return f"it is not JSON ({error})"
        return None if found is None else f"{found.json_path}: {found.message}"


def _exact(text: str) -> Any:
    """Read JSON with exact fractions: 0.3 is a multiple of 0.1."""
    return json.loads(text, parse_float=Decimal)
