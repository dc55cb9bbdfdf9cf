"""Whatever comes in: a 4xx with a readable JSON error, never a 500, and nothing is lost."""

from __future__ import annotations

import io
import json

import pytest
from django.test import Client
from rest_framework.test import APIClient

from notes.models import Note

ENDPOINTS = [
    "/notes",
    "/semantic/search",
    "/semantic/regenerate-embeddings",
    "/reminders",
    "/reminders/preview",
    "/reminders/preferences/renew",
    "/auth/signup",
    "/auth/login",
    "/auth/refresh",
]

BODIES = {
    "malformed": b'{"title": ',
    "nothing but space": b" ",
    "not utf-8": b'{"title": "\xff"}',
    "utf-16": '{"title": "a"}'.encode("utf-16"),
    "a list": b"[]",
    "a string": b'"title"',
    "null": b"null",
    "NaN": b'{"title": NaN}',
    "NUL": rb'{"title": "a\u0000b", "query": "a\u0000b", "password": "a\u0000b"}',
    "a lone surrogate": rb'{"title": "\ud800", "query": "\udfff", "password": "\ud800"}',
    "a surrogate in a key": rb'{"\ud800": 1}',
    "deep lists": b"[" * 100_000,
    "deep closed lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"title":' * 50_000 + b"1" + b"}" * 50_000,
    "6 MB": b'{"title": "' + b"x" * 6_000_000 + b'"}',
}


def assert_readable(response) -> None:
    assert 400 <= response.status_code < 500, response.content[:500]
    body = json.loads(response.content)
    assert body["status"] == response.status_code
    assert body["title"]
    assert body["detail"]
    assert isinstance(body["errors"], list)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", ENDPOINTS)
def test_bad_bodies(api: APIClient, path: str, body: bytes):
    assert_readable(api.post(path, body, content_type="application/json"))
    assert not Note.objects.exists()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bad_patches_change_nothing(api: APIClient, body: bytes):
    note = api.post("/notes", {"title": "Kept", "content": "As it was."}).json()
    response = api.patch(f"/notes/{note['id']}", body, content_type="application/json")
    assert_readable(response)
    assert api.get(f"/notes/{note['id']}").json() == note


def test_a_body_that_is_not_json_is_415(api: APIClient):
    response = api.post("/notes", "title=a", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 415
    assert_readable(response)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/notes/",
        "/notes/one",
        "/notes/-1",
        "/notes/%00",
        "/jobs/%00",
        "/jobs/00000000-0000-0000-0000-00000000000g",
    ],
)
def test_unknown_paths_are_404(api: APIClient, path: str):
    response = api.get(path)
    assert response.status_code == 404
    assert_readable(response)


def test_an_unknown_host_is_400():
    response = Client(headers={"Host": "evil.example"}).get("/me")
    assert response.status_code == 400
    assert_readable(response)


def test_a_session_cookie_with_a_nul_is_nobody():
    for path in ("/", "/me", "/login/", "/admin/login/", "/notes"):
        response = Client(headers={"Cookie": r'sessionid="\000\000abc"'}).get(path)
        assert response.status_code in (200, 401)


@pytest.mark.parametrize("charset", ["rot13", "base64", "punycode", "idna", "utf-16", "no-such"])
def test_a_claimed_charset_changes_nothing(charset: str, db: None):
    """Through the WSGI entry point: Django fails on some before any of its error handling."""
    from scribes.wsgi import application

    status = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/me",
        "QUERY_STRING": "a=%ff",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_TYPE": f"application/json; charset={charset}",
        "wsgi.input": io.BytesIO(),
    }
    application(environ, lambda line, headers: status.append(line))
    assert status == ["401 Unauthorized"]


@pytest.mark.parametrize(
    "query", ["status__exact=%00", "job_type=%00", "created_at__year=99999999999999", "q=%00"]
)
def test_wrong_filters_in_the_admin(admin_client: Client, query: str):
    assert admin_client.get(f"/admin/jobs/backgroundjob/?{query}").status_code in (200, 302)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/auth/password/request"),
        ("post", "/auth/account/email"),
        ("post", "/auth/refresh"),
        ("get", "/auth/session"),
        ("put", "/auth/login"),
    ],
)
def test_accounts_offer_only_what_works(api: APIClient, method: str, path: str):
    assert_readable(getattr(APIClient(), method)(path))


def test_a_million_characters_are_welcome(api: APIClient):
    content = "主" * 1_000_000
    response = api.post("/notes", {"title": "Long", "content": content})
    assert response.status_code == 201
    assert response.json()["content"] == content


def test_text_of_every_kind_comes_back_as_it_went_in(api: APIClient):
    content = "🙏🏽 \u200f שָׁלוֹם\t\r\n‘quotes’ \\ \u2028 <script> {{ x }} %s \x01\x7f"
    body = api.post("/notes", {"title": "All kinds", "content": content}).json()
    assert api.get(f"/notes/{body['id']}").json()["content"] == content


def test_the_documentation_works_offline(client: Client, db: None):
    page = client.get("/docs").content.decode()
    assert "swagger-ui" in page
    assert "http://" not in page
    assert "https://" not in page
    schema = client.get("/schema", headers={"Accept": "application/json"}).json()
    assert {"/notes", "/jobs/{job_id}", "/semantic/regenerate-embeddings"} <= set(schema["paths"])


def test_the_front_page_lists_what_there_is(client: Client, db: None):
    body = client.get("/").json()
    for url in body.values():
        assert client.get(url).status_code != 404
