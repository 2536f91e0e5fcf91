"""The SDKs that requests go through. OpenAI's and Anthropic's are built alike, errors included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from llmpipe.errors import MissingDependencyError


@dataclass(frozen=True, slots=True)
class Sdk:
    """An SDK: its package, its asynchronous client, and what its endpoint answers."""

    package: str
    load: Callable[[], Any]
    """Imports the package and returns its module."""
    client: str
    base_error: str
    install: str
    overloaded: frozenset[int]
    """The statuses with which the endpoint asks for fewer requests."""

    @property
    def errors(self) -> Any:
        """The module that has the error classes."""
        return self.load()

    @property
    def error(self) -> type[Exception]:
        """The base class of the errors."""
        found: type[Exception] = getattr(self.errors, self.base_error)
        return found

    def open(self, base_url: str, api_key: str, timeout: float, *, local: bool, who: str) -> Any:
        """Return a client. ``local`` is for our own server: no proxy, no keep-alive.

        Raises:
            MissingDependencyError: The package is not installed.
        """
        if find_spec(self.package) is None:
            raise MissingDependencyError(
                f"asking {who} needs the {self.package} package", hint=self.install
            )
        sdk = self.load()
        return getattr(sdk, self.client)(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=0,  # our own retries wait for the others and are counted
            default_headers={"Connection": "close"} if local else None,
            http_client=sdk.DefaultAsyncHttpxClient(trust_env=not local),
        )


def _openai() -> Any:
    import openai

    return openai


def _anthropic() -> Any:
    import anthropic

    return anthropic


OPENAI = Sdk(
    "openai", _openai, "AsyncOpenAI", "OpenAIError", "pip install 'llmpipe[serve]'",
    frozenset({429}),
)  # fmt: skip
ANTHROPIC = Sdk(
    "anthropic", _anthropic, "AsyncAnthropic", "AnthropicError",
    "pip install 'llmpipe[anthropic]'", frozenset({429, 529}),
)  # fmt: skip
