"""The shapes of which requests to a served model are made: typed, bounded fields and no others."""

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
"""Tokens that may be written; -1 is as many as the context has room for."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that are heeded, by their names; others are refused."""


class Request(Fields, frozen=True):
    """A request as a whole."""

    def check(self, served: Served) -> None:
        """Make sure that all that is asked for can be had of this model.

        Raises:
            ApiError: something cannot, or has no effect as it is asked for.
        """

    def worded(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a checked request as llama.cpp is to be sent them."""
        return fields


class Checked(Protocol):
    """A request that can be held against the model that is to answer it."""

    __struct_fields__: ClassVar[tuple[str, ...]]

    def check(self, served: Served) -> None:
        """See `Request.check`."""

    def worded(self, fields: dict[str, Any]) -> dict[str, Any]:
        """See `Request.worded`."""
