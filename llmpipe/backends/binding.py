"""The address and the API key of a server: read, check and bind them before it starts."""

from __future__ import annotations

import ipaddress
import os
import socket

from llmpipe.backends.openai.api_key import clean_key
from llmpipe.errors import LlmpipeError, StageError, UsageError
from llmpipe.needs import Need


def read_api_key(variable: str | None) -> str | None:
    """Return the API key in an environment variable, or None if no variable is named.

    Raises:
        UsageError: The variable is not set, or its value cannot be sent as a key.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"the environment variable {variable} has no API key", hint=f"export {variable}=…"
        )
    try:
        return clean_key(key, f"the API key in {variable}")
    except StageError as error:
        raise UsageError(error.message, hint=error.hint) from None


def require_protection(host: str, api_key: str | None) -> None:
    """Require an API key for an address that other machines can reach.

    Raises:
        UsageError: There is no key.
    """
    if api_key is None and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and no API key protects it",
            hint="bind 127.0.0.1, or name the variable with a key: --api-key-env NAME",
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def port_need(host: str, port: int) -> Need:
    """Return the port of ``llmpipe serve`` as a need: whether it is free."""
    try:
        bind(host, port).close()
    except LlmpipeError:
        mend = "use another: llmpipe serve SPEC --port N"
        return Need(str(port), False, mend, "port", advisory=True)
    return Need(str(port), True, what="port", advisory=True)


def bind(host: str, port: int) -> socket.socket:
    """Bind an address before costly work begins. The caller listens on the socket and closes it.

    Raises:
        UsageError: The port does not exist.
        StageError: The address is in use or not available on this machine.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"there is no port {port}", hint="they go from 1 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(host, port, error) from None
    try:
        # Reuse a port that was just released, but not one that a server listens on.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise cannot_listen(host, port, error) from None
    return bound


def cannot_listen(host: str, port: int, error: Exception | None = None) -> StageError:
    """Return the error of a server that cannot listen on its address."""
    reason = "the port is in use or the address is not on this machine"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        reason = "the host name is unknown"
    elif isinstance(error, PermissionError):
        reason = "permission denied"
    return StageError(
        f"cannot listen on {host}:{port}: {reason}",
        hint="choose another port, or stop the program that listens there",
    )


def reachable_url(host: str, port: int) -> str:
    """Return the URL to call; for all interfaces, that of the loopback address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
