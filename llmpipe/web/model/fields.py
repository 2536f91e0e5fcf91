"""Base types for requests to a served model: typed, bounded fields; others are refused."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Protocol

import msgspec
from msgspec import Meta

from llmpipe.web.model.checks import Served

COUNT = Annotated[int, Meta(ge=0)]
SHARE = Annotated[float, Meta(ge=0, le=1)]
AMOUNT = Annotated[float, Meta(ge=0)]
TEXT = Annotated[str, Meta(min_length=1)]
TOKENS = Annotated[int, Meta(ge=-1)]
"""The maximum number of new tokens; -1 is as many as fit in the context."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The supported fields of an object; others are refused."""


class Request(Fields, frozen=True):
    """A whole request."""

    def check(self, served: Served) -> None:
        """Require that the model supports everything in the request.

        Raises:
            ApiError: Something is unsupported, or would have no effect.
        """

    def upstream_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a checked request in the form to send to llama.cpp."""
        return fields


class Checked(Protocol):
    """A request that can be checked against the served model."""

    __struct_fields__: ClassVar[tuple[str, ...]]

    def check(self, served: Served) -> None:
        """See `Request.check`."""

    def upstream_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """See `Request.upstream_fields`."""
