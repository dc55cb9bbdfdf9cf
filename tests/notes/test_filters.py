"""The filters of GET /notes and POST /semantic/search, and the order of GET /notes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

from notes.models import Note
from scribes.models import User
from tests.helpers.factories import make_note

ENDPOINTS = ("list", "search")
ORDERINGS = ("updated_at", "-updated_at", "created_at", "-created_at", "title", "-title")


def write(user: User, title: str, created: str = "2025-06-15T12:00", **fields) -> Note:
    updated = fields.pop("updated", created)
    note = make_note(user, title, **({"content": "By night."} | fields))
    # The model itself would store the current time.
    times = {"created_at": _utc(created), "updated_at": _utc(updated)}
    Note.objects.filter(pk=note.pk).update(**times)
    return note


def _utc(time: str) -> datetime:
    return datetime.fromisoformat(time).replace(tzinfo=UTC)


def request(api: APIClient, endpoint: str, filters: dict[str, Any]) -> Any:
    if endpoint == "list":
        return api.get("/notes", filters)
    return api.post("/semantic/search", {"query": "night", "mode": "keyword"} | filters)


def found(api: APIClient, endpoint: str, **filters) -> list[str]:
    """The titles of the notes found, in alphabetical order, since the order is tested elsewhere."""
    response = request(api, endpoint, {"limit": 100} | filters)
    assert response.status_code == 200
    body = response.json()
    notes = body["notes"] if endpoint == "list" else [hit["note"] for hit in body["results"]]
    return sorted(note["title"] for note in notes)


@pytest.fixture
def library(alice: User, bob: User) -> None:
    write(alice, "A", "2025-01-01T00:00", tags=["john", "new birth"], preacher="C. H. Spurgeon")
    write(alice, "B", "2025-01-01T23:59:59", tags=["john"], preacher="John 100%_Owen")
    write(alice, "C", "2025-01-02T00:00", tags=["new birth", "john", "x"], preacher="SPURGEON")
    write(alice, "D", "2025-12-31T12:00", scripture_refs="Jn 3:16", tags=["John", 'it\'s, "x"'])
    write(bob, "His", "2025-01-01T00:00", tags=["john", "new birth"], preacher="C. H. Spurgeon")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "ABCD"),
        ({"tags": ["john"]}, "ABC"),
        ({"tags": ["john", "new birth"]}, "AC"),
        ({"tags": ["new birth", "john", "x"]}, "C"),
        ({"tags": ["john", "John"]}, ""),
        ({"tags": ["new"]}, ""),
        ({"tags": ['it\'s, "x"']}, "D"),
        ({"preacher": "spurgeon"}, "AC"),
        ({"preacher": "h. s"}, "A"),
        ({"preacher": "100%_"}, "B"),
        ({"preacher": "%"}, "B"),
        ({"preacher": "'; --"}, ""),
        ({"date_from": "2025-01-02"}, "CD"),
        ({"date_to": "2025-01-01"}, "AB"),
        ({"date_from": "2025-01-01", "date_to": "2025-01-01"}, "AB"),
        ({"date_from": "2025-01-02", "date_to": "2025-01-01"}, ""),
        ({"date_from": "0001-01-01", "date_to": "9999-12-31"}, "ABCD"),
        ({"tags": ["john"], "preacher": "Spurgeon"}, "AC"),
        ({"tags": ["john"], "preacher": "Spurgeon", "date_to": "2025-01-01"}, "A"),
        ({"scripture": "John 3", "date_from": "2025-12-31", "tags": ["John"]}, "D"),
        ({"scripture": "John 3", "tags": ["john"]}, ""),
    ],
)
def test_filters_must_all_match(api: APIClient, filters: dict[str, Any], expected: str):
    for endpoint in ENDPOINTS:
        assert found(api, endpoint, **filters) == list(expected), endpoint


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_filters_never_find_notes_of_other_users(bobs_api: APIClient, endpoint: str):
    assert found(bobs_api, endpoint) == ["His"]
    assert found(bobs_api, endpoint, tags=["john"], preacher="Spurgeon") == ["His"]
    assert found(bobs_api, endpoint, tags=["x"]) == []


@pytest.mark.usefixtures("library")
def test_total_counts_filtered_notes(api: APIClient):
    body = api.get("/notes", {"tags": "john", "limit": "1", "offset": "1"}).json()
    assert (len(body["notes"]), body["total"]) == (1, 3)
    assert api.get("/notes", {"tags": "john", "offset": "3"}).json() == {"notes": [], "total": 3}


@pytest.mark.usefixtures("library")
def test_empty_filters_of_a_form_are_ignored(api: APIClient):
    empty = "preacher=&scripture=&date_from=&date_to=&ordering="
    assert api.get(f"/notes?{empty}").json()["total"] == 4


INVALID = [
    ("tags", ["x" * 101]),
    ("tags", ["x"] * 51),
    ("tags", ["ok", ""]),
    ("preacher", "x" * 201),
    ("scripture", "by night"),
    ("date_from", "yesterday"),
    ("date_from", "2025-02-30"),
    ("date_to", "2025-01-01T00:00"),
    ("date_to", "10000-01-01"),
    ("limit", 0),
    ("limit", 101),
    ("limit", "all"),
    ("offset", -1),
    ("offset", 2**31),
]


@pytest.mark.parametrize(("param", "value"), INVALID)
def test_filters_refuse_invalid_values(api: APIClient, param: str, value: Any):
    for endpoint in ENDPOINTS:
        response = request(api, endpoint, {param: value})
        assert response.status_code == 400, endpoint
        assert response.json()["errors"][0]["param"].split(".")[0] == param


@pytest.mark.parametrize("param", ["tags", "preacher", "scripture", "ordering"])
def test_filters_refuse_a_nul_character(api: APIClient, param: str):
    response = api.get("/notes", {param: "John 3\0"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"].split(".")[0] == param


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("tags", "john"),
        ("tags", [["john"]]),
        ("preacher", ["C. H."]),
        ("preacher", ""),
        ("date_to", 5),
    ],
)
def test_search_refuses_filters_of_the_wrong_type(api: APIClient, param: str, value: Any):
    response = request(api, "search", {param: value})
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"].split(".")[0] == param


# --- Order ----------------------------------------------------------------------------------


def listed(api: APIClient, **query) -> list[int]:
    return [note["id"] for note in api.get("/notes", query).json()["notes"]]


@pytest.fixture
def shelf(alice: User) -> list[Note]:
    """Each of the three fields gives another order; two notes are equal in all of them."""
    return [
        write(alice, "b", "2025-01-01T12:00", updated="2025-03-02T12:00"),
        write(alice, "c", "2025-01-02T12:00", updated="2025-03-01T12:00"),
        write(alice, "a", "2025-01-03T12:00", updated="2025-03-03T12:00"),
        write(alice, "a", "2025-01-03T12:00", updated="2025-03-03T12:00"),
    ]


@pytest.mark.parametrize(
    ("ordering", "expected"),
    [
        ("updated_at", [1, 0, 2, 3]),
        ("-updated_at", [3, 2, 0, 1]),
        ("created_at", [0, 1, 2, 3]),
        ("-created_at", [3, 2, 1, 0]),
        ("title", [2, 3, 0, 1]),
        ("-title", [1, 0, 3, 2]),
    ],
)
def test_list_is_ordered_as_requested(
    api: APIClient, shelf: list[Note], ordering: str, expected: list[int]
):
    assert listed(api, ordering=ordering) == [shelf[n].pk for n in expected]


def test_list_is_ordered_by_last_edit_by_default(api: APIClient, shelf: list[Note]):
    assert listed(api) == listed(api, ordering="-updated_at")


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_equal_notes_keep_their_order_across_pages(api: APIClient, alice: User, ordering: str):
    notes = {write(alice, "Equal").pk for _ in range(7)}
    # An update moves the row to the end of the table, where an unstable sort would return it last.
    Note.objects.filter(pk=min(notes)).update(preacher="Moved")
    whole = listed(api, ordering=ordering)
    pages = [listed(api, ordering=ordering, limit=2, offset=n) for n in (0, 2, 4, 6)]
    assert [note for page in pages for note in page] == whole
    assert whole == sorted(notes, reverse=ordering.startswith("-"))


@pytest.mark.parametrize("ordering", ["id", "--title", "user", "content", "title,id", "?", "Title"])
def test_list_refuses_unknown_orders(api: APIClient, ordering: str):
    response = api.get("/notes", {"ordering": ordering})
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"] == "ordering"


def test_request_without_user_is_401(db: None):
    assert APIClient().get("/notes?tags=john&ordering=title").status_code == 401
