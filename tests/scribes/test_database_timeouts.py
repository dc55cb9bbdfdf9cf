"""A request does not wait for the database without end, and says so with a 503."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.helpers.processes import environment, last_line_of
from tests.helpers.servers import Web, web_process

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with web_process(tmp_path, WEB_STATEMENT_TIMEOUT_SECONDS="1") as web:
        web.sign_up("alice@example.com")
        yield web


def test_request_is_503_when_a_statement_takes_too_long(web: Web):
    with psycopg.connect(environment()["DATABASE_URL"]) as other:
        other.execute("LOCK TABLE notes")
        answer = web.get("/notes")
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["detail"] == "The database did not answer in time. Try again later."
    assert web.get("/notes").status_code == 200


def test_only_web_processes_limit_their_statements():
    show = "django.setup()\nwith connection.cursor() as c: c.execute('SHOW statement_timeout'); "
    code = f"import django\nfrom django.db import connection\n{show}print(c.fetchone()[0])"
    assert last_line_of(code) == "0"
    web_code = f"import django, scribes.wsgi\nfrom django.db import connection\n{show}print(c.fetchone()[0])"
    assert last_line_of(web_code, WEB_STATEMENT_TIMEOUT_SECONDS="7") == "7s"
