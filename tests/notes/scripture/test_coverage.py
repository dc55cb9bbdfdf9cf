"""GET /scripture/coverage."""

from __future__ import annotations

from rest_framework.test import APIClient

from scribes.models import User
from tests.helpers.factories import make_note


def test_coverage_counts_each_note_once(api: APIClient, alice: User, bob: User):
    make_note(alice, "One", scripture_refs="Gen 1:1-2:3; Gen 1:5", content="Jude 3 and Jude 5.")
    make_note(alice, "Two", content="See Gen 2:3.")
    make_note(bob, "Three", content="See Gen 2:3 and Exod 3:14.")
    assert api.get("/scripture/coverage").json() == {
        "books": [
            {
                "osis": "Gen",
                "name": "Genesis",
                "notes": 2,
                "chapters": [{"chapter": 1, "notes": 1}, {"chapter": 2, "notes": 2}],
            },
            {
                "osis": "Jude",
                "name": "Jude",
                "notes": 1,
                "chapters": [{"chapter": 1, "notes": 1}],
            },
        ]
    }


def test_coverage_names_books_in_the_language_asked_for(api: APIClient, alice: User):
    make_note(alice, "One", scripture_refs="John 3:16")
    (book,) = api.get("/scripture/coverage?language=fr").json()["books"]
    assert book["name"] == "Jean"
    assert api.get("/scripture/coverage?language=xx").status_code == 400
