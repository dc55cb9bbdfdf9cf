"""POST /scripture/parse, and references in their canonical form."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from notes.scripture.formatting import canonical, osis
from notes.scripture.references import MAX_SCANNED_CHARACTERS, find_references


def test_parse_returns_positions_and_canonical_forms(api: APIClient):
    text = "🙂 He said (1 Cor xiii. 4–7) and *Jn* 3:16, 18; see Jude 3."
    answer = api.post("/scripture/parse", {"text": text})
    assert answer.status_code == 200
    found = answer.json()["references"]
    assert [row["canonical"] for row in found] == [
        *("1 Corinthians 13:4-7", "John 3:16", "John 3:18", "Jude 3"),
    ]
    assert [row["osis"] for row in found] == [
        *("1Cor.13.4-1Cor.13.7", "John.3.16", "John.3.18", "Jude.1.3"),
    ]
    assert [row["text"] for row in found] == ["1 Cor xiii. 4–7", "Jn* 3:16", "18", "Jude 3"]
    assert all(text[row["start"] : row["end"]] == row["text"] for row in found)


def test_parse_names_books_in_the_language_asked_for(api: APIClient):
    for language, name in {"de": "Johannes 3,16", "es": "Juan 3:16", "ko": "요한복음 3:16"}.items():
        answer = api.post("/scripture/parse", {"text": "John 3:16", "language": language}).json()
        assert [row["canonical"] for row in answer["references"]] == [name]


def test_parse_reads_books_in_a_field_only(api: APIClient):
    for is_field, expected in ((False, []), (True, ["Genesis - Deuteronomy"])):
        answer = api.post(
            "/scripture/parse", {"text": "Gen-Deuteronomy", "is_field": is_field}
        ).json()
        assert [row["canonical"] for row in answer["references"]] == expected


def test_parse_warns_of_verses_that_do_not_exist(api: APIClient):
    answer = api.post(
        "/scripture/parse", {"text": "Ps 151:1; John 3:16, 99", "is_field": True}
    ).json()
    assert [row["canonical"] for row in answer["references"]] == ["John 3:16"]
    assert answer["warnings"] == [
        "“Ps 151:1” is not a scripture reference.",
        "“99” is not a scripture reference.",
    ]


def test_parse_refuses_a_text_that_is_too_long(api: APIClient):
    answer = api.post("/scripture/parse", {"text": "a" * (MAX_SCANNED_CHARACTERS + 1)})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["param"] == "text"


@pytest.mark.parametrize(
    ("text", "form", "code"),
    [
        ("Jn 3", "John 3", "John.3"),
        ("Jn", "John", "John"),
        ("Jn 3:1-36", "John 3", "John.3"),
        ("Jn 3-4", "John 3-4", "John.3-John.4"),
        ("Gen 1:1-2:3", "Genesis 1:1-2:3", "Gen.1.1-Gen.2.3"),
        ("3 Jn", "3 John", "3John"),
        ("Jude 3-5", "Jude 3-5", "Jude.1.3-Jude.1.5"),
        ("Mal 4:2 - Mt 1:3", "Malachi 4:2 - Matthew 1:3", "Mal.4.2-Matt.1.3"),
        ("Ps 23:1", "Psalm 23:1", "Ps.23.1"),
    ],
)
def test_canonical_form_is_short_and_read_as_the_same(text: str, form: str, code: str):
    ranges = find_references(text)
    assert (canonical(ranges), osis(ranges)) == (form, code)
    assert find_references(form) == find_references(code) == ranges


def test_note_lists_its_references_with_their_positions(api: APIClient):
    note = {
        "title": "Love",
        "scripture_refs": "1 Cor 13; Mal 4 - Mt 1",
        "content": "“So”, *Jn* 3:16.",
    }
    created = api.post("/notes", note).json()
    found = api.get(f"/notes/{created['id']}").json()["references"]
    assert created["references"] == found
    assert [(row["field"], row["text"], row["canonical"]) for row in found] == [
        ("scripture_refs", "1 Cor 13", "1 Corinthians 13"),
        ("scripture_refs", "Mal 4 - Mt 1", "Malachi 4 - Matthew 1"),
        ("content", "Jn* 3:16", "John 3:16"),
    ]
    for row in found:
        assert note[row["field"]][row["start"] : row["end"]] == row["text"]
    changed = api.patch(f"/notes/{created['id']}", {"content": "None."}).json()["references"]
    assert [row["field"] for row in changed] == ["scripture_refs", "scripture_refs"]
