"""The models that one service offers, each under its name, behind one line for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.engines import ENGINES, Engine
from llmpipe.web.model.checks import Served
from llmpipe.web.model.names import named_roles
from llmpipe.web.model.relay import Relay
from llmpipe.web.model.upstream import Upstream
from llmpipe.web.queueing import Line


@dataclass(frozen=True, slots=True)
class Offer:
    """A model of the service."""

    served: Served
    relay: Relay
    engine: Engine
    card: Mapping[str, Any]
    """Its entry in the list of models."""


class Offers:
    """The models of a service by name. The first one answers requests that name none."""

    def __init__(
        self,
        models: Sequence[tuple[LlamaServer, Path]],
        line: Line,
        *,
        tells_cached: bool,
    ) -> None:
        names = [server.model for server, _ in models]
        self._by_name = {
            server.model: _offer(
                server,
                file,
                line,
                tuple(name for name in names if name != server.model),
                tells_cached=tells_cached,
            )
            for server, file in models
        }
        self.first = self._by_name[names[0]]

    def cards(self) -> list[Mapping[str, Any]]:
        """Return the list of models, the first one first."""
        return [offer.card for offer in self._by_name.values()]

    def of(self, data: Any) -> Offer:
        """Return the model that a request names, or the first one.

        A name that no model has is refused when the request is checked.
        """
        return self.named(data.get("model") if isinstance(data, dict) else None)

    def named(self, name: Any) -> Offer:
        """Return the model with this name, or the first one."""
        return self._by_name.get(name, self.first) if isinstance(name, str) else self.first


def _offer(
    server: LlamaServer, file: Path, line: Line, others: tuple[str, ...], *, tells_cached: bool
) -> Offer:
    props, described, engine = server.props(), server.described(), ENGINES[server.engine]
    served = Served(
        server.model,
        int(described["meta"]["n_vocab"]),
        str(props.get("chat_template", "")),
        props.get("chat_template_caps", {}),
        named_roles(server),
        tells_cached,
        f"the engine {server.engine} does not read calls" if engine.routes is not None else "",
        others,
    )
    place = urlsplit(server.url)
    upstream = Upstream(place.hostname or "", place.port or 0, server.api_key or "")
    card = {
        "id": server.model,
        "object": "model",
        "created": described["created"],
        "owned_by": "llmpipe",
        "meta": described["meta"],
    }
    context = int(props["default_generation_settings"]["n_ctx"])
    relay = Relay(upstream, line, file, server.model, context, tells_cached)
    return Offer(served, relay, engine, card)
