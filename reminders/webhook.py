"""A signed HTTP POST to a URL that a user chose, but never to our own network (SSRF).

The host's addresses are looked up once, all of them are checked, and the connection is made to a
checked address. A name that resolves differently the next time therefore gains nothing. Redirects
are not followed, proxies from the environment are not used, and the response's body is not read.

The signature is that of Standard Webhooks (standardwebhooks.com), over id, time and body.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from threading import Thread, Timer
from typing import Any

from django.conf import settings
from standardwebhooks import Webhook
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url
from urllib3.util.ssl_match_hostname import CertificateError

# Limits for the DNS lookup, for each step of the connection, and for all of it. The last one also
# ends a response that trickles in.
LOOK_UP_TIMEOUT_SECONDS = 5
STEP_TIMEOUT_SECONDS = 10
TOTAL_TIMEOUT_SECONDS = 20

Address = IPv4Address | IPv6Address
NO_ANSWER = (OSError, HTTPError, HTTPException, CertificateError)

# ipaddress calls these global, but they lead to an internal IPv4 address, or nowhere.
NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated (SIIT)
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # local-use NAT64
        "2001::/23",  # Teredo and other protocols
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local
    )
)


class RefusedAddress(Exception):
    """The URL is not allowed, or its host has an address that is not public."""


def is_public(address: Address) -> bool:
    """Whether the address is on the public internet or in WEBHOOK_ALLOWED_NETWORKS."""
    if any(address in ip_network(network) for network in settings.WEBHOOK_ALLOWED_NETWORKS):
        return True
    is_excluded = any(address in network for network in NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not is_excluded


def check_url(url: str) -> Url:
    """The URL's parts. Raises RefusedAddress unless it is http(s)://host[:port]/… without a password."""
    try:
        parts = parse_url(url)
    except LocationParseError as error:
        raise RefusedAddress(f"This is not a URL: {error}") from error
    if not url.isprintable() or " " in url:
        raise RefusedAddress("The URL must not contain spaces or control characters.")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise RefusedAddress("The URL must start with https:// or http:// and a host.")
    if parts.auth:
        raise RefusedAddress("The URL must not contain a user name or password.")
    return parts


def resolve(host: str, port: int) -> list[Address]:
    """All addresses of the host. Raises RefusedAddress if any of them is not public, or OSError."""
    try:
        found = _look_up(host.strip("[]"), port)
    except UnicodeError as error:
        raise RefusedAddress(f"{host} is not a host name: {error}") from error
    addresses = [ip_address(str(sockaddr[0])) for *_, sockaddr in found]
    for address in addresses:
        if not is_public(address):
            raise RefusedAddress(f"{host} has the address {address}, which is not public.")
    return addresses


def _look_up(host: str, port: int) -> list[Any]:
    """Look up the host in a thread, which is abandoned when it takes too long: the system's resolver
    has no time limit."""
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(LOOK_UP_TIMEOUT_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"{host} could not be looked up in time.") from None


def post(url: str, secret: str, webhook_id: str, data: dict[str, Any]) -> tuple[int, str]:
    """Send `data`; return the response's status and its Retry-After header.

    `webhook_id` is the same at each attempt. Raises RefusedAddress, or one of NO_ANSWER if there is
    no response in time, or an invalid one.
    """
    parts = check_url(url)
    body = json.dumps(data)
    headers = {
        "Content-Type": "application/json",
        "Host": parts.netloc or "",
        "User-Agent": "Scribes",
        **signature(secret, webhook_id, datetime.now(UTC), body),
    }
    with _connection(parts) as connection:
        connection.request("POST", parts.request_uri, body.encode(), headers)
        response = connection.getresponse()
        return response.status, response.headers.get("Retry-After", "")


def signature(secret: str, webhook_id: str, now: datetime, body: str) -> dict[str, str]:
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, now, body),
    }


@contextmanager
def _connection(parts: Url) -> Iterator[HTTPConnection]:
    """A connection to a checked address, with the host's own name; cut after TOTAL_TIMEOUT_SECONDS."""
    end = time.monotonic() + TOTAL_TIMEOUT_SECONDS
    host, port = str(parts.host), parts.port or (443 if parts.scheme == "https" else 80)
    address = str(resolve(host, port)[0])
    if parts.scheme == "https":
        name = host.strip("[]")
        connection: HTTPConnection = HTTPSConnection(
            address, port, timeout=STEP_TIMEOUT_SECONDS, server_hostname=name, assert_hostname=name
        )
    else:
        connection = HTTPConnection(address, port, timeout=STEP_TIMEOUT_SECONDS)
    timer = Timer(end - time.monotonic(), _cut, [connection])
    timer.start()
    try:
        yield connection
    finally:
        timer.cancel()
        connection.close()


def _cut(connection: HTTPConnection) -> None:
    try:
        connection.sock.shutdown(socket.SHUT_RDWR)
    except (OSError, AttributeError):
        pass  # already closed
