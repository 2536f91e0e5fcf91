"""A pipeline engine: one YAML file from raw data to a fine-tuned model or a retrieval service."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers read the imports below; importing `typing` takes a while
if TYPE_CHECKING:
    from typing import Any

    from llmpipe.api.loading import load
    from llmpipe.api.pipeline import Pipeline
    from llmpipe.api.plan import Plan
    from llmpipe.api.publishing import Publication, Published
    from llmpipe.api.remote import RemoteStore, Transfer
    from llmpipe.api.rows import Rows, Table
    from llmpipe.api.running import Run
    from llmpipe.api.services import Service
    from llmpipe.errors import LlmpipeError

__version__ = "0.1.0"

_HOMES = {
    "load": "llmpipe.api.loading",
    "Pipeline": "llmpipe.api.pipeline",
    "Plan": "llmpipe.api.plan",
    "Publication": "llmpipe.api.publishing",
    "Published": "llmpipe.api.publishing",
    "RemoteStore": "llmpipe.api.remote",
    "Run": "llmpipe.api.running",
    "Rows": "llmpipe.api.rows",
    "Table": "llmpipe.api.rows",
    "Transfer": "llmpipe.api.remote",
    "Service": "llmpipe.api.services",
    "LlmpipeError": "llmpipe.errors",
}
"""The module of each public name; it is imported when the name is first used."""

__all__ = [
    "LlmpipeError", "Pipeline", "Plan", "Publication", "Published", "RemoteStore", "Rows", "Run",
    "Service", "Table", "Transfer", "__version__", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'llmpipe' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
