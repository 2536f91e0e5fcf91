"""Kinds whose config has several forms, such as ``generate`` with its methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variants:
    """The forms of a kind's config, selected by the value of one field.

    A variant's class has a ``Config``, a subclass of the kind's own that pins the field to the
    variant's name. It is imported when a spec names the variant. A field without effect in a
    variant cannot be written there.
    """

    field: str
    """The field that selects the variant."""
    classes: Mapping[str, str]
    """llmpipe's own variants by name, as ``package.module:Class``."""
    entry_points: str
    """The entry point group through which other packages offer variants."""
