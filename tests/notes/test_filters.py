"""Which notes GET /notes and POST /semantic/search look at, and in which order GET /notes has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

from notes.models import Note
from scribes.models import User

WAYS = ("list", "search")
ORDERINGS = ("updated_at", "-updated_at", "created_at", "-created_at", "title", "-title")


def write(user: User, title: str, created: str = "2025-06-15T12:00", **fields) -> Note:
    """`created` and `updated` are set behind the model, which knows only now."""
    updated = fields.pop("updated", created)
    note = Note.objects.create(user=user, title=title, **({"content": "By night."} | fields))
    times = {"created_at": _utc(created), "updated_at": _utc(updated)}
    Note.objects.filter(pk=note.pk).update(**times)
    return note


def _utc(time: str) -> datetime:
    return datetime.fromisoformat(time).replace(tzinfo=UTC)


def request(api: APIClient, way: str, filters: dict[str, Any]) -> Any:
    if way == "list":
        return api.get("/notes", filters)
    return api.post("/semantic/search", {"query": "night", "mode": "words"} | filters)


def found(api: APIClient, way: str, **filters) -> list[str]:
    """Titles, in alphabetical order: what the filters do to the order is not asked here."""
    response = request(api, way, {"limit": 100} | filters)
    assert response.status_code == 200
    body = response.json()
    notes = body["notes"] if way == "list" else [hit["note"] for hit in body["results"]]
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
def test_finds_the_notes_that_all_filters_are_true_of(
    api: APIClient, filters: dict[str, Any], expected: str
):
    for way in WAYS:
        assert found(api, way, **filters) == list(expected), way


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("way", WAYS)
def test_never_finds_somebody_elses_notes(bobs_api: APIClient, way: str):
    assert found(bobs_api, way) == ["His"]
    assert found(bobs_api, way, tags=["john"], preacher="Spurgeon") == ["His"]
    assert found(bobs_api, way, tags=["x"]) == []


@pytest.mark.usefixtures("library")
def test_the_total_is_of_what_the_filters_leave(api: APIClient):
    body = api.get("/notes", {"tags": "john", "limit": "1", "offset": "1"}).json()
    assert (len(body["notes"]), body["total"]) == (1, 3)
    assert api.get("/notes", {"tags": "john", "offset": "3"}).json() == {"notes": [], "total": 3}


@pytest.mark.usefixtures("library")
def test_a_filter_left_empty_in_a_form_is_none(api: APIClient):
    empty = "preacher=&scripture=&date_from=&date_to=&ordering="
    assert api.get(f"/notes?{empty}").json()["total"] == 4


WRONG = [
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


@pytest.mark.parametrize(("param", "value"), WRONG)
def test_refuses_wrong_values(api: APIClient, param: str, value: Any):
    for way in WAYS:
        response = request(api, way, {param: value})
        assert response.status_code == 400, way
        assert response.json()["errors"][0]["param"].split(".")[0] == param


@pytest.mark.parametrize("param", ["tags", "preacher", "scripture", "ordering"])
def test_refuses_a_nul_character(api: APIClient, param: str):
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
def test_search_refuses_wrong_types(api: APIClient, param: str, value: Any):
    response = request(api, "search", {param: value})
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"].split(".")[0] == param


# --- The order ------------------------------------------------------------------------------


def listed(api: APIClient, **query) -> list[int]:
    return [note["id"] for note in api.get("/notes", query).json()["notes"]]


@pytest.fixture
def shelf(alice: User) -> list[Note]:
    """Three orders, each another one; two notes are alike in all of them."""
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
def test_orders_the_list(api: APIClient, shelf: list[Note], ordering: str, expected: list[int]):
    assert listed(api, ordering=ordering) == [shelf[n].pk for n in expected]


def test_the_one_edited_last_is_first_unless_something_else_is_asked(
    api: APIClient, shelf: list[Note]
):
    assert listed(api) == listed(api, ordering="-updated_at")


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_equal_notes_keep_their_order_from_page_to_page(api: APIClient, alice: User, ordering: str):
    notes = {write(alice, "The same").pk for _ in range(7)}
    # An update moves a row to the end of the table, where a sort that is not stable finds it.
    Note.objects.filter(pk=min(notes)).update(preacher="Moved")
    whole = listed(api, ordering=ordering)
    pages = [listed(api, ordering=ordering, limit=2, offset=n) for n in (0, 2, 4, 6)]
    assert [note for page in pages for note in page] == whole
    assert whole == sorted(notes, reverse=ordering.startswith("-"))


@pytest.mark.parametrize("ordering", ["id", "--title", "user", "content", "title,id", "?", "Title"])
def test_refuses_other_orders(api: APIClient, ordering: str):
    response = api.get("/notes", {"ordering": ordering})
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"] == "ordering"


def test_nobody_is_401(db: None):
    assert APIClient().get("/notes?tags=john&ordering=title").status_code == 401
