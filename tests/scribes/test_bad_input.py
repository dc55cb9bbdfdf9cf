"""Bad requests get a 4xx with a problem document, never a 500, and unusual text is stored as sent."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from rest_framework.test import APIClient

from notes.models import Note
from tests.helpers.servers import Web

ENDPOINTS = [
    "/notes",
    "/semantic/search",
    "/scripture/parse",
    "/semantic/regenerate-embeddings",
    "/reminders",
    "/reminders/preview",
    "/reminders/preferences/rotate-secret",
    "/auth/signup",
    "/auth/login",
    "/auth/refresh",
]

BODIES = {
    "malformed": b'{"title": ',
    "only a space": b" ",
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


def assert_problem(response) -> None:
    """Check that the response is a 4xx with a problem document of RFC 9457."""
    assert 400 <= response.status_code < 500, response.content[:500]
    assert response.headers["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert body["status"] == response.status_code
    assert body["title"]
    assert body["detail"]
    assert isinstance(body["errors"], list)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", ENDPOINTS)
def test_bad_body_is_4xx(api: APIClient, path: str, body: bytes):
    assert_problem(api.post(path, body, content_type="application/json"))
    assert not Note.objects.exists()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bad_patch_changes_nothing(api: APIClient, body: bytes):
    note = api.post("/notes", {"title": "Kept", "content": "As it was."}).json()
    response = api.patch(f"/notes/{note['id']}", body, content_type="application/json")
    assert_problem(response)
    assert api.get(f"/notes/{note['id']}").json() == note


def test_body_that_is_not_json_is_415(api: APIClient):
    response = api.post("/notes", "title=a", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 415
    assert_problem(response)


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
def test_unknown_path_is_404(api: APIClient, path: str):
    response = api.get(path)
    assert response.status_code == 404
    assert_problem(response)


def test_unknown_host_is_400():
    response = Client(headers={"Host": "evil.example"}).get("/me")
    assert response.status_code == 400
    assert_problem(response)


def test_session_cookie_with_a_nul_is_ignored():
    for path in ("/", "/me", "/login/", "/admin/login/", "/notes"):
        response = Client(headers={"Cookie": r'sessionid="\000\000abc"'}).get(path)
        assert response.status_code in (200, 401)


def test_charset_of_the_content_type_is_ignored(web: Web):
    """Some charsets fail before Django's error handling begins, so this takes the whole web process."""
    for charset in ("rot13", "base64", "punycode", "idna", "utf-16", "no-such"):
        headers = {"Content-Type": f"application/json; charset={charset}"}
        assert web.get("/me?a=%ff", headers=headers).status_code == 401, charset


@pytest.mark.parametrize(
    "query", ["status__exact=%00", "job_type=%00", "created_at__year=99999999999999", "q=%00"]
)
def test_admin_list_survives_invalid_filters(admin_client: Client, query: str):
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
def test_unsupported_account_request_is_4xx(api: APIClient, method: str, path: str):
    assert_problem(getattr(APIClient(), method)(path))


def test_note_may_have_a_million_characters(api: APIClient):
    content = "主" * 1_000_000
    response = api.post("/notes", {"title": "Long", "content": content})
    assert response.status_code == 201
    assert response.json()["content"] == content


def test_note_keeps_unusual_characters(api: APIClient):
    content = "🙏🏽 \u200f שָׁלוֹם\t\r\n‘quotes’ \\ \u2028 <script> {{ x }} %s \x01\x7f"
    body = api.post("/notes", {"title": "Unusual", "content": content}).json()
    assert api.get(f"/notes/{body['id']}").json()["content"] == content


def test_documentation_page_loads_nothing_from_the_internet(client: Client, db: None):
    page = client.get("/docs").content.decode()
    assert "swagger-ui" in page
    assert "http://" not in page
    assert "https://" not in page
    schema = client.get("/schema", headers={"Accept": "application/json"}).json()
    assert {"/notes", "/jobs/{job_id}", "/semantic/regenerate-embeddings"} <= set(schema["paths"])


def test_root_links_to_existing_paths(client: Client, db: None):
    body = client.get("/").json()
    for url in body.values():
        assert client.get(url).status_code != 404
