"""Webhooks: signed, retried, and never sent to an internal address."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread

import pytest
from django.utils import timezone
from rest_framework.test import APIClient
from standardwebhooks import Webhook, WebhookVerificationError

from notes.models import Note
from reminders import webhook
from reminders.models import Delivery, ReminderPreferences
from scribes.models import User
from tests.helpers.factories import make_note, make_reminder
from tests.helpers.mail import Listener, MailServer, WebServer
from tests.helpers.processes import LONGEST_WAIT_SECONDS
from tests.helpers.reminders import Prefer, deliver, outcomes, retry, send, sweep

# --- Calls ----------------------------------------------------------------------------------


@pytest.fixture
def preferences(hook: WebServer, api: APIClient, alice: User) -> ReminderPreferences:
    answer = api.patch("/reminders/preferences", {"webhook_url": hook.url})
    assert answer.status_code == 200
    return ReminderPreferences.for_user(alice)


def deliver_webhook(note: Note, **fields) -> Delivery:
    return deliver(make_reminder(note, channels=["webhook"], **fields))


@pytest.mark.usefixtures("preferences")
def test_call_is_signed(hook: WebServer, api: APIClient, note: Note):
    delivery = deliver_webhook(note, message="Now", time_zone="Europe/Berlin")
    assert (delivery.status, outcomes(delivery)) == ("sent", ["sent"])
    ((path, headers, content),) = hook.requests
    assert path == "/hook"
    assert headers["webhook-id"] == str(delivery.pk)
    secret = api.get("/reminders/preferences").json()["webhook_secret"]
    payload = Webhook(secret).verify(content, headers)
    assert payload["type"] == "reminder.due"
    assert payload["data"]["title"] == "Rest"
    assert payload["data"]["message"] == "Now"
    occurrence_at = datetime.fromisoformat(payload["data"]["occurrence_at"])
    assert occurrence_at == delivery.occurrence_at
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(content.replace(b"Now", b"Not"), headers)


@pytest.mark.usefixtures("preferences")
def test_call_is_signed_with_the_new_secret_after_a_rotation(
    hook: WebServer, api: APIClient, note: Note
):
    old = api.get("/reminders/preferences").json()["webhook_secret"]
    url = "/reminders/preferences/rotate-secret"
    new = api.post(url, {"secret": "webhook"}).json()["webhook_secret"]
    deliver_webhook(note)
    ((_, headers, content),) = hook.requests
    Webhook(new).verify(content, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(content, headers)


@pytest.mark.usefixtures("preferences")
@pytest.mark.parametrize("status", [500, 503, 429, 404, 301])
def test_other_status_is_retried_with_the_same_id(hook: WebServer, note: Note, status: int):
    hook.statuses = [status, 204]
    hook.headers = {"Location": "/elsewhere"}
    delivery = deliver_webhook(note)
    assert (delivery.status, delivery.error) == ("pending", f"HTTP {status}")
    assert retry(delivery).status == "sent"
    assert outcomes(delivery) == ["postponed", "sent"]
    assert {path for path, _, _ in hook.requests} == {"/hook"}
    assert len({headers["webhook-id"] for _, headers, _ in hook.requests}) == 1


@pytest.mark.usefixtures("preferences")
def test_retry_after_is_respected(hook: WebServer, note: Note):
    hook.statuses, hook.headers = [429], {"Retry-After": "7200"}
    delivery = deliver_webhook(note)
    delay = delivery.next_attempt_at - timezone.now()
    assert timedelta(seconds=7100) < delay <= timedelta(seconds=7200)


def test_410_fails_and_deletes_the_address(
    hook: WebServer, preferences: ReminderPreferences, note: Note
):
    hook.statuses = [410]
    assert deliver_webhook(note).status == "failed"
    preferences.refresh_from_db()
    assert preferences.webhook_url == ""
    assert deliver_webhook(note).error == "There is no webhook address."
    assert len(hook.requests) == 1


def test_410_keeps_an_address_that_was_changed_meanwhile(
    hook: WebServer, note: Note, preferences: ReminderPreferences, monkeypatch
):
    def answer(*args: object) -> tuple[int, str]:
        ReminderPreferences.objects.update(webhook_url="https://new.example/")
        return 410, ""

    monkeypatch.setattr(webhook, "post", answer)
    assert deliver_webhook(note).status == "failed"
    preferences.refresh_from_db()
    assert preferences.webhook_url == "https://new.example/"


@pytest.mark.usefixtures("preferences")
def test_unreachable_server_is_retried(hook: WebServer, note: Note):
    hook.close()
    delivery = deliver_webhook(note)
    assert (delivery.status, outcomes(delivery)) == ("pending", ["postponed"])
    assert "refused" in delivery.error


@pytest.mark.usefixtures("preferences")
def test_unreachable_server_is_tried_once_per_batch(
    hook: WebServer, mail: MailServer, note: Note, bob: User
):
    """Other users' reminders do not wait for it."""
    hook.close()
    unreachable = [make_reminder(note, channels=["webhook"]) for _ in range(3)]
    make_reminder(make_note(bob), due_in=timedelta(seconds=0))
    sweep()
    send()
    assert [message["To"] for message in mail.messages] == [bob.email]
    deliveries = Delivery.objects.filter(reminder__in=unreachable)
    assert sorted(deliveries.values_list("attempts", flat=True)) == [0, 0, 1]
    assert set(deliveries.values_list("status", flat=True)) == {"pending"}


@pytest.mark.usefixtures("preferences")
def test_unreachable_server_does_not_stop_other_users_webhooks(
    hook: WebServer, note: Note, bob: User, prefer: Prefer
):
    """Each user has a server of their own."""
    prefer(note.user, webhook_url="http://127.0.0.1:1/")
    prefer(bob, webhook_url=hook.url)
    first = make_reminder(note, channels=["webhook"], due_in=-timedelta(seconds=9))
    second = make_reminder(make_note(bob), channels=["webhook"])
    sweep()
    send()
    statuses = [reminder.deliveries.get().status for reminder in (first, second)]
    assert statuses == ["pending", "sent"]


def test_post_ends_when_the_response_trickles_in(monkeypatch, settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    monkeypatch.setattr(webhook, "TOTAL_TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=trickle, args=(server,), daemon=True).start()
        start = time.monotonic()
        with pytest.raises(webhook.NO_ANSWER):
            webhook.post(url_of("127.0.0.1", server.getsockname()[1]), SECRET, "1", {})
        # It takes half a second. Without the limit it would never end.
        assert time.monotonic() - start < LONGEST_WAIT_SECONDS / 10


def test_post_ends_when_the_name_server_does_not_answer(monkeypatch):
    answered = Event()
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **options: answered.wait(LONGEST_WAIT_SECONDS)
    )
    monkeypatch.setattr(webhook, "LOOK_UP_TIMEOUT_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(webhook.NO_ANSWER, match="looked up"):
        webhook.post("http://slow.example/", SECRET, "1", {})
    assert time.monotonic() - start < LONGEST_WAIT_SECONDS / 10
    answered.set()


def trickle(server: socket.socket) -> None:
    connection, _ = server.accept()
    try:
        while True:
            connection.send(b"H")
            time.sleep(0.05)
    except OSError:
        connection.close()


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


# --- Addresses ------------------------------------------------------------------------------

INTERNAL = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "5f00::1",
]

PUBLIC = ["1.1.1.1", "8.8.8.8", "9.255.255.255", "172.32.0.1", "100.128.0.1", "2606:4700::1111"]


def test_internal_addresses_are_not_public():
    assert len(INTERNAL) >= 40
    assert [address for address in INTERNAL if webhook.is_public(ip_address(address))] == []
    assert all(webhook.is_public(ip_address(address)) for address in PUBLIC)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


SPELLINGS = [
    *("127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.1", "127.0.1", "0", "0.0.0.0"),
    *("2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.000.000.001"),
    *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::]"),
    *("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "127。0。0。1", "%31%32%37.0.0.1"),
]


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_post_never_calls_this_machine(listener: Listener, scheme: str, host: str):
    with pytest.raises((webhook.RefusedAddress, *webhook.NO_ANSWER)):
        webhook.post(url_of(host, listener.port, scheme), SECRET, "1", {})
    assert not listener.was_called()


def url_of(host: str, port: int, scheme: str = "http") -> str:
    return f"{scheme}://{host}:{port}/"


def test_internal_address_fails_for_good(
    note: Note, alice: User, prefer: Prefer, listener: Listener
):
    """Even if the address got into the table without validation."""
    prefer(alice, webhook_url=url_of("localhost", listener.port))
    delivery = deliver_webhook(note)
    assert (delivery.status, outcomes(delivery)) == ("failed", ["failed"])
    assert "not public" in delivery.error
    assert not listener.was_called()


def resolve_to(monkeypatch, *addresses: str) -> list[str]:
    """Resolve every name to these addresses; return a list of the names looked up."""
    asked = []

    def getaddrinfo(host, port, *args, **options):
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_one_internal_address_is_enough_to_reject(monkeypatch):
    resolve_to(monkeypatch, "8.8.8.8", "127.0.0.1")
    with pytest.raises(webhook.RefusedAddress):
        webhook.post("http://both.example/", SECRET, "1", {})


def test_post_calls_the_address_that_was_checked(hook: WebServer, monkeypatch):
    """The name is looked up once, so resolving differently the second time gains nothing."""
    asked = resolve_to(monkeypatch, "127.0.0.1")
    url = hook.url.replace("127.0.0.1", "rebinding.example")
    assert webhook.post(url, SECRET, "1", {"a": 1})[0] == 200
    assert [host for host in asked if host == "rebinding.example"] == ["rebinding.example"]
    ((_, headers, content),) = hook.requests
    assert headers["Host"] == url.split("/")[2]
    assert json.loads(content) == {"a": 1}


@pytest.fixture
def tls_hook(hook: WebServer, tmp_path: Path, monkeypatch) -> WebServer:
    """`hook` with a certificate for hook.example, which this process trusts."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=hook.example", "-addext", "subjectAltName=DNS:hook.example"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hook.server.socket = context.wrap_socket(hook.server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return hook


def test_tls_is_verified_for_the_name_in_the_url(tls_hook: WebServer, monkeypatch):
    """The connection is made to an address, but the certificate must have the name."""
    resolve_to(monkeypatch, "127.0.0.1")
    port = tls_hook.server.server_port
    assert webhook.post(url_of("hook.example", port, "https"), SECRET, "1", {})[0] == 200
    with pytest.raises(webhook.NO_ANSWER, match="hostname"):
        webhook.post(url_of("other.example", port, "https"), SECRET, "1", {})
    assert len(tls_hook.requests) == 1


def test_post_ignores_proxies_of_the_environment(hook: WebServer, monkeypatch, listener: Listener):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, url_of("127.0.0.1", listener.port))
    assert webhook.post(hook.url, SECRET, "1", {})[0] == 200
    assert not listener.was_called()


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/", "file:///etc/passwd", "example.com", "//example.com", "http://"),
        *("http:///path", "https://user:password@example.com/", "gopher://127.0.0.1:6379/_FLUSHALL"),
        *("http://exa mple.com/", "http://[::1", "http://example.com:99999/", "javascript:alert(1)"),
        "http://example.com/\r\nHost: evil",
    ],
)  # fmt: skip
def test_preferences_reject_an_invalid_webhook_url(api: APIClient, url: str):
    answer = api.patch("/reminders/preferences", {"webhook_url": url})
    assert answer.status_code == 400, answer.content
    assert answer.json()["errors"][0]["param"] == "webhook_url"
