"""scribes.api.pagination: pages of a list, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.test import APIClient, APIRequestFactory

from notes.models import Note
from scribes.api.pagination import NamedPagination
from scribes.models import User
from tests.helpers.factories import make_note


class Numbers(NamedPagination):
    name = "numbers"


class Rows:
    """The numbers 0 to length - 1, as a queryset that counts how often it is counted."""

    def __init__(self, length: int) -> None:
        self.numbers = range(length)
        self.counts = 0

    def __getitem__(self, part: slice) -> range:
        return self.numbers[part]

    def count(self) -> int:
        self.counts += 1
        return len(self.numbers)


def page(rows: Rows, **query: Any) -> dict[str, Any]:
    pagination = Numbers()
    found = pagination.paginate_queryset(rows, Request(APIRequestFactory().get("/", query)))
    body: dict[str, Any] = pagination.get_paginated_response(found).data
    return body


def test_page_has_20_rows_by_default():
    assert page(Rows(50)) == {"numbers": list(range(20)), "total": 50}


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"limit": 2}, [0, 1]),
        ({"limit": 2, "offset": 3}, [3, 4]),
        ({"limit": 100, "offset": 48}, [48, 49]),
        ({"limit": 100, "offset": 50}, []),
        ({"offset": 2**31 - 1}, []),
        # As a form with empty inputs sends them.
        ({"limit": "", "offset": ""}, list(range(20))),
    ],
)
def test_page_starts_at_its_offset(query: dict[str, object], numbers: list[int]):
    assert page(Rows(50), **query) == {"numbers": numbers, "total": 50}


@pytest.mark.parametrize("length", [0, 1, 20])
def test_rows_are_not_counted_on_the_only_page(length: int):
    rows = Rows(length)
    assert page(rows)["total"] == length
    assert rows.counts == 0


@pytest.mark.parametrize(
    ("query", "counts"),
    [({"limit": 20}, 1), ({"limit": 20, "offset": 40}, 0), ({"offset": 60}, 1)],
    ids=["first of three", "last of three", "behind the last"],
)
def test_rows_are_counted_only_where_the_total_is_unknown(query: dict[str, int], counts: int):
    rows = Rows(50)
    assert page(rows, **query)["total"] == 50
    assert rows.counts == counts


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("limit", value) for value in ("0", "-1", "101", "all", "1.5", "9" * 30)],
        *[("offset", value) for value in ("-1", "2147483648", "x", "NaN", "9" * 2000)],
    ],
)
def test_invalid_limits_and_offsets_are_rejected(name: str, value: str):
    with pytest.raises(ValidationError) as error:
        page(Rows(50), **{name: value})
    assert set(error.value.detail) == {name}


def test_limits_are_inclusive():
    assert len(page(Rows(200), limit=1)["numbers"]) == 1
    assert len(page(Rows(200), limit=100)["numbers"]) == 100


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "offset=-1", "offset=2147483648"])
def test_invalid_page_is_400_with_its_parameter(api: APIClient, query: str):
    response = api.get(f"/notes?{query}")
    assert response.status_code == 400
    assert [error["param"] for error in response.json()["errors"]] == [query.partition("=")[0]]


def test_pages_of_a_list_neither_overlap_nor_leave_gaps(api: APIClient, alice: User):
    for number in range(7):
        make_note(alice, f"Note {number}")
    pages = [api.get(f"/notes?limit=3&offset={offset}").json() for offset in (0, 3, 6)]
    ids = [note["id"] for page in pages for note in page["notes"]]
    assert len(ids) == 7
    assert set(ids) == set(Note.objects.values_list("pk", flat=True))
    assert [page["total"] for page in pages] == [7, 7, 7]
