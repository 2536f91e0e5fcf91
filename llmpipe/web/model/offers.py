"""The models that one service offers, each under its name, behind one line for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
class Hosted:
    """A server, its file, and the names of the LoRA adapters that it has."""

    server: LlamaServer
    file: Path
    adapters: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models that it offers."""
        return (self.server.model, *self.adapters)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model of the service: that of a server, or the same with an adapter."""

    served: Served
    relay: Relay
    engine: Engine
    card: Mapping[str, Any]
    """Its entry in the list of models."""

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a checked request for a text, with the adapter.

        Without one, the scale 0 is sent: where the field is absent, llama.cpp goes on from a cached
        prompt that it computed with an adapter.
        """
        served = self.served
        if "lora" in fields or not served.adapters:
            return fields
        number, scale = (0, 0.0) if served.adapter is None else (served.adapter, 1.0)
        return fields | {"lora": [{"id": number, "scale": scale}]}


class Offers:
    """The models of a service by name. The first one answers requests that name none."""

    def __init__(self, hosts: Sequence[Hosted], line: Line, *, tells_cached: bool) -> None:
        names = [name for host in hosts for name in host.names]
        self._by_name: dict[str, Offer] = {}
        for host in hosts:
            plain = _offer(host, line, tells_cached=tells_cached)
            offers = [plain, *(_adapted(plain, number) for number in range(len(host.adapters)))]
            for name, offer in zip(host.names, offers, strict=True):
                others = tuple(each for each in names if each != name)
                served = replace(offer.served, name=name, others=others)
                self._by_name[name] = replace(offer, served=served)
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


def _adapted(plain: Offer, number: int) -> Offer:
    """Return a server's model with one of its adapters."""
    name = plain.served.adapters[number]
    return replace(
        plain,
        served=replace(plain.served, adapter=number),
        relay=replace(plain.relay, adapter=name),
        card={**plain.card, "id": name, "parent": plain.served.name},
    )


def _offer(host: Hosted, line: Line, *, tells_cached: bool) -> Offer:
    server, engine = host.server, ENGINES[host.server.engine]
    props, described = server.props(), server.described()
    served = Served(
        server.model,
        int(described["meta"]["n_vocab"]),
        str(props.get("chat_template", "")),
        props.get("chat_template_caps", {}),
        named_roles(server),
        tells_cached,
        f"the engine {server.engine} does not read calls" if engine.routes is not None else "",
        host.adapters,
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
    relay = Relay(
        upstream, line, host.file, server.model, context, tells_cached, program=engine.program
    )
    return Offer(served, relay, engine, card)
