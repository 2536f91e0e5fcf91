"""Where a server listens and who may call it: what every server that stays up must settle first."""

from __future__ import annotations

import ipaddress
import os
import socket

from llmpipe.backends.openai.api_key import clean_key
from llmpipe.errors import LlmpipeError, StageError, UsageError
from llmpipe.needs import Need


def read_api_key(variable: str | None) -> str | None:
    """Give the key that an environment variable holds; None where none is named.

    Raises:
        UsageError: the variable is not set, or holds what cannot be sent as a key.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"the environment variable {variable} holds no API key", hint=f"export {variable}=…"
        )
    try:
        return clean_key(key, f"the API key in {variable}")
    except StageError as error:
        raise UsageError(error.message, hint=error.hint) from None


def require_protection(host: str, api_key: str | None) -> None:
    """Make sure that what other machines can reach asks for a key.

    Raises:
        UsageError: it does not.
    """
    if api_key is None and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and no API key protects it",
            hint="bind 127.0.0.1, or name the variable with a key: --api-key-env NAME",
        )


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def port_need(host: str, port: int) -> Need:
    """Return the port that ``llmpipe serve`` will listen on as a need: whether it is free."""
    try:
        bind(host, port).close()
    except LlmpipeError:
        mend = "take another: llmpipe serve SPEC --port N"
        return Need(str(port), False, mend, "port", advisory=True)
    return Need(str(port), True, what="port", advisory=True)


def bind(host: str, port: int) -> socket.socket:
    """Take an address before anything costly begins; whoever gets the socket listens and closes.

    Raises:
        UsageError: there is no such port.
        StageError: somebody else has the address, or it is none of ours.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"there is no port {port}", hint="they go from 1 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(host, port, error) from None
    try:
        # A port that was just given up may be taken; one that is listened on may not.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise cannot_listen(host, port, error) from None
    return bound


def cannot_listen(host: str, port: int, error: Exception | None = None) -> StageError:
    """Give the error of a server that does not get its address."""
    reason = "the port is in use or the address is not ours"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        reason = "no address is known by that name"
    elif isinstance(error, PermissionError):
        reason = "it is not given to everybody"
    return StageError(
        f"cannot listen on {host}:{port}: {reason}",
        hint="choose another port, or stop what listens there",
    )


def reachable_url(host: str, port: int) -> str:
    """Give the address to call: what is bound to every interface is called by loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
