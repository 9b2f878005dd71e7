"""Which URLs a webhook may have (PROTOCOL.md §6.2, §12.8).

Law of this room: the only place that decides where this server may be made to send requests, by the text of a URL and
by the address that its name stands for. What is not plainly allowed is refused, and an address written in an unusual
way is not plain. Names are resolved elsewhere; whoever connects asks ``is_public`` about the address that it connects
to. Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

URL_BYTES_MAX: Final = 2048

_URL: Final = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::([0-9]{1,5}))?((?:[/?][!-~]*)?)")
_LABEL: Final = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_DOTTED: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_LOCAL: Final = ("localhost",)
_LOCAL_SUFFIXES: Final = (".localhost", ".local", ".internal")

_NOT_PUBLIC_V4: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local; instance metadata of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_PUBLIC_V6: Final = ip_network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    map(
        ip_network,
        (
            "2001::/23",  # Teredo, which carries an IPv4 address, and other special purposes
            "2001:db8::/32",
            "2002::/16",  # 6to4: carries an IPv4 address
            "3fff::/20",
        ),
    )
)
_NOT_PUBLIC: Final = {4: _NOT_PUBLIC_V4, 6: _NOT_PUBLIC_V6}


class WebhookUrl(NamedTuple):
    """A URL that may be used, in parts. ``local``: by the exception for development, it is a loopback address."""

    scheme: str
    host: str
    port: int
    target: str
    local: bool


def parse_webhook_url(url: str, *, development: bool = False, hosts: Collection[str] | None = None) -> WebhookUrl:
    """The parts of a URL that a webhook may have. Raises ``ValueError`` with the reason.

    ``development`` allows ``http://localhost`` and ``http://127.0.0.x``. ``hosts``: nothing but these is allowed.
    """
    match = _URL.fullmatch(url) if len(url) <= URL_BYTES_MAX else None
    if match is None or "#" in url:
        raise ValueError(
            f"it is no plain URL of at most {URL_BYTES_MAX} characters: https://host/path, without user names, "
            "fragments, spaces and characters that have to be encoded"
        )
    scheme, host, port = match[1], match[2].lower(), int(match[3] or (443 if match[1] == "https" else 80))
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    target = match[4] if match[4].startswith("/") else "/" + match[4]
    address = _address(host)
    if hosts is not None and host not in hosts:
        raise ValueError(f"{host} is not among the hosts that this server may send webhooks to")
    if scheme == "http":
        if not development or not (host in _LOCAL or (address is not None and host.startswith("127.0.0."))):
            raise ValueError("it has to begin with https://" + _EXCEPTION[development])
        return WebhookUrl(scheme, host, port, target, True)
    if host in _LOCAL or host.endswith(_LOCAL_SUFFIXES):
        raise ValueError(f"{host} is a name of a local network")
    if address is not None and not is_public(str(address)):
        raise ValueError(f"{host} is no public address")
    return WebhookUrl(scheme, host, port, target, False)


_EXCEPTION: Final = {False: "", True: "; for development, http://localhost and http://127.0.0.x are allowed, too"}


def is_public(address: str) -> bool:
    """Whether that IP address is one of the public internet. One that is written in an unusual way is not."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed not in _PUBLIC_V6:
        return False
    return not any(parsed in network for network in _NOT_PUBLIC[parsed.version])


def is_loopback(address: str) -> bool:
    """Whether that IP address is this machine's own."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, None for a name. Raises ``ValueError`` for what is neither, or an odd address."""
    if host.startswith("["):
        return IPv6Address(host[1:-1])
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        if not _DOTTED.fullmatch(host):
            raise ValueError(f"{host} is no IPv4 address in the usual form")
        return IPv4Address(host)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host} is no name of a host")
    return None
