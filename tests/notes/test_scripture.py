"""Scripture references: how they are parsed, and how notes are found by them."""

from __future__ import annotations

from cProfile import Profile
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from notes.models import ScriptureReference
from notes.scripture.references import (
    MAX_REFERENCES,
    MAX_SCANNED_CHARACTERS,
    find_references,
    parse_note,
)
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.plans import plans_of

# --- Parsing --------------------------------------------------------------------------------


def ranges(field: str, text: str = "") -> list[tuple[int, int]]:
    return [(verses.start, verses.end) for verses in parse_note(field, text).references]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jn 3:16", [(43_003_016, 43_003_016)]),
        ("Jn 3:14-21", [(43_003_014, 43_003_021)]),
        ("John 3.14–21", [(43_003_014, 43_003_021)]),
        ("john 3:14 — 21", [(43_003_014, 43_003_021)]),
        ("Jn\u00a03 : 14\u2009−\u200921", [(43_003_014, 43_003_021)]),
        ("1 Cor 13", [(46_013_001, 46_013_013)]),
        ("I Cor 13:4", [(46_013_004, 46_013_004)]),
        ("Jude 3", [(65_001_003, 65_001_003)]),
        ("Rom 8.28; 12:1-2", [(45_008_028, 45_008_028), (45_012_001, 45_012_002)]),
        ("Rom 8:28; and 12:1", [(45_008_028, 45_008_028), (45_012_001, 45_012_001)]),
        ("John 3:16, 18-20", [(43_003_016, 43_003_016), (43_003_018, 43_003_020)]),
        ("Rom 8\n12:1", [(45_008_001, 45_008_039), (45_012_001, 45_012_001)]),
        ("Rom 8:28; Jn 3:16", [(45_008_028, 45_008_028), (43_003_016, 43_003_016)]),
        ("Gen 1:26-2:3", [(1_001_026, 1_002_003)]),
        ("Matt 5-7", [(40_005_001, 40_007_029)]),
        ("Mal 4 - Matt 1", [(39_004_001, 39_004_006), (40_001_001, 40_001_025)]),
        (
            "Acts 28:30 - 1 Cor 1:2; 1:10",
            [
                (44_028_030, 44_028_031),
                (45_001_001, 45_016_027),
                (46_001_001, 46_001_002),
                (46_001_010, 46_001_010),
            ],
        ),
    ],
)
def test_references_are_found_in_field_and_text(text: str, expected: list[tuple[int, int]]):
    assert ranges(text) == ranges("", text) == expected
    assert parse_note(text, "").unparsed == []


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("John", [(43_001_001, 43_021_025)]),
        ("The book of Jude", [(65_001_001, 65_001_025)]),
        ("3 John", [(64_001_001, 64_001_014)]),
        ("Genesis–Exodus", [(1_001_001, 1_050_026), (2_001_001, 2_040_038)]),
    ],
)
def test_book_name_is_a_reference_in_the_field_only(field: str, expected: list[tuple[int, int]]):
    assert ranges(field) == expected
    assert ranges("", field) == []


def test_references_are_found_in_prose():
    text = """# Nicodemus (Jn 3:1-21)

He came *by night*. “Ye must be born again” (John 3:7), says our Lord;
compare Ezek 36.26—27, and Titus 3:5.
"""
    assert ranges("", text) == [
        (43_003_001, 43_003_021),
        (43_003_007, 43_003_007),
        (26_036_026, 26_036_027),
        (56_003_005, 56_003_005),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n;;\n ",
        "He was there at 3:16 in the morning.",
        "John bought 3 apples and Mark 	none.",
        "I am 5 years old.",
        "John 22",
        "John 3:99",
        "John 3:99999999999999999999",
        "John 3:21-14",
        "Romans - Acts",
        "John 3-99999",
        "On to John.2 of them came",
        "Jude-Tobit 16",
        "John 99 - Acts 1",
    ],
)
def test_no_references_are_found_in_other_text(text: str):
    assert parse_note("", text).references == []


def test_invalid_references_do_not_hide_valid_ones():
    text = "Ask John.2 about Romans 5:1 - Acts 99:1, then read Titus 3:5 and John 3-999."
    assert ranges("", text) == [(56_003_005, 56_003_005)]


def test_unparsed_references_returns_other_parts():
    assert parse_note("Jn 3:16; the sermon ;\n John 22; Rom 8", "").unparsed == [
        "the sermon",
        "John 22",
    ]


def test_duplicate_references_are_returned_once():
    assert ranges("Jn 3:16; John 3.16", "Rom 8:28, said he. Jn 3:16; Rom 8:28") == [
        (43_003_016, 43_003_016),
        (45_008_028, 45_008_028),
    ]


def test_number_of_references_is_limited():
    verses = [f"Ps {chapter}:{verse}" for chapter in range(1, 151) for verse in range(1, 8)]
    assert len(find_references("; ".join(verses))) == MAX_REFERENCES
    assert len(find_references(", ".join(verses))) == MAX_REFERENCES


def test_number_of_stored_ranges_is_limited(api: APIClient):
    """A range over many books has one for each of them."""
    note = {"title": "Many", "content": "Gen 1 - Rev 22. " * 1000 + "Jn 3:16. " * 1000}
    response = api.post("/notes", note)
    assert len(response.json()["references"]) == MAX_REFERENCES // 66
    assert ScriptureReference.objects.count() <= MAX_REFERENCES


def test_number_of_scanned_characters_is_limited():
    last = "Jn 3:16"
    spaces = " " * (MAX_SCANNED_CHARACTERS - len(last))
    assert ranges("", spaces + last) == [(43_003_016, 43_003_016)]
    assert ranges("", spaces + " " * len(last) + last) == []


DEAR = [
    "Jn 1,2-",
    ",1-2Jn 3 ",
    "1 \u017fam 1,2-",
    "Gen - Rev 22:21, ",
    "Jn 1:1-",
    "John.2 ",
    "Jn 99:1; ",
]


@pytest.mark.parametrize("text", DEAR)
def test_work_for_any_text_is_limited(text: str):
    """It is in proportion to the number of characters."""
    whole = (text * MAX_SCANNED_CHARACTERS)[:MAX_SCANNED_CHARACTERS]
    with Profile() as profile:
        parse_note("", whole)
    calls = sum(entry.callcount for entry in profile.getstats())
    assert calls < 150 * MAX_SCANNED_CHARACTERS


def test_range_ends_with_the_second_book():
    assert ranges("Jn 21-Acts 1:2-Rom 3") == ranges("Jn 21-Acts 1:2; Rom 3")


# --- Saving ---------------------------------------------------------------------------------


def test_unparsed_references_are_stored_with_a_warning(api: APIClient):
    typed = "Jn 3:14–21; the sermon on  the mount"
    warning = "scripture_refs: “the sermon on the mount” is not a scripture reference."
    created = api.post("/notes", {"title": "Born again", "scripture_refs": typed})
    assert created.status_code == 201
    body = created.json()
    assert (body["scripture_refs"], body["warnings"]) == (typed, [warning])
    url = f"/notes/{body['id']}"
    assert api.get(url).json()["warnings"] == [warning]
    assert api.get("/notes").json()["notes"][0]["warnings"] == [warning]
    patched = api.patch(url, {"scripture_refs": "Jn 3:14–21; Matt 5"})
    assert (patched.status_code, patched.json()["warnings"]) == (200, [])
    assert api.patch(url, {"scripture_refs": "?"}).json()["warnings"] == [
        "scripture_refs: “?” is not a scripture reference."
    ]


@pytest.mark.parametrize(
    "text", ["John 3-99999", "John.0", "Jude-Tobit 16", "John 3:21 - John 3:14"]
)
def test_notes_with_strange_references_are_saved(api: APIClient, text: str):
    note = {"title": "Strange", "content": text, "scripture_refs": text}
    assert api.post("/notes", note).status_code == 201


# --- Filtering ------------------------------------------------------------------------------


ENDPOINTS = ("list", "search")


def found(api: APIClient, endpoint: str, scripture: str) -> set[str]:
    """The titles of the notes that the endpoint returns."""
    if endpoint == "list":
        notes = api.get("/notes", {"scripture": scripture, "limit": "100"}).json()["notes"]
    else:
        body = {"query": "night", "mode": "keyword", "scripture": scripture, "limit": 100}
        notes = [hit["note"] for hit in api.post("/semantic/search", body).json()["results"]]
    return {note["title"] for note in notes}


@pytest.fixture
def sermons(alice: User, bob: User) -> None:
    for user, title, fields in [
        (alice, "Field", {"scripture_refs": "Jn 3:14-21", "content": "By night."}),
        (alice, "Text", {"content": "By night (Jn 3:14-21)."}),
        (alice, "Chapters", {"scripture_refs": "Mal 1 - John 3", "content": "By night."}),
        (alice, "Book", {"scripture_refs": "John", "content": "By night."}),
        (alice, "Before", {"scripture_refs": "Jn 3:1-15", "content": "By night."}),
        (alice, "Letter", {"scripture_refs": "1 Jn 3:16", "content": "By night."}),
        (alice, "None", {"content": "By night, said John, at 3:16."}),
        (bob, "His", {"scripture_refs": "Jn 3:16", "content": "By night."}),
    ]:
        make_note(user, title, **fields)


@pytest.mark.usefixtures("sermons")
@pytest.mark.parametrize(
    ("scripture", "expected"),
    [
        ("John 3:16", {"Field", "Text", "Chapters", "Book"}),
        ("Jn 3", {"Field", "Text", "Chapters", "Book", "Before"}),
        ("John", {"Field", "Text", "Chapters", "Book", "Before"}),
        ("Jn 3:1-2", {"Chapters", "Book", "Before"}),
        ("Jn 3:21-4:1", {"Field", "Text", "Chapters", "Book"}),
        ("Jn 21:25", {"Book"}),
        ("Mark", {"Chapters"}),
        ("Luke - Acts", {"Field", "Text", "Chapters", "Book", "Before"}),
        ("Jn 4:1; 1 John 3", {"Book", "Letter"}),
        ("3 John", set()),
    ],
)
def test_filter_finds_notes_that_share_a_verse(api: APIClient, scripture: str, expected: set[str]):
    for endpoint in ENDPOINTS:
        assert found(api, endpoint, scripture) == expected, endpoint


@pytest.mark.usefixtures("sermons")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_filter_never_finds_notes_of_other_users(bobs_api: APIClient, endpoint: str):
    assert found(bobs_api, endpoint, "John") == {"His"}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "edit",
    [
        {"scripture_refs": "Rom 8:28", "content": "By night."},
        {"scripture_refs": "", "tags": ["Jn 3:16"], "content": "By night, Rom 8:28"},
    ],
)
def test_edited_note_is_found_by_new_references_only(
    api: APIClient, endpoint: str, edit: dict[str, Any]
):
    note = {"title": "Edited", "scripture_refs": "Jn 3:16", "content": "By night."}
    url = f"/notes/{api.post('/notes', note).json()['id']}"
    assert found(api, endpoint, "Jn 3:16") == {"Edited"}
    api.patch(url, edit)
    assert found(api, endpoint, "Jn 3:16") == set()
    assert found(api, endpoint, "Rom 8") == {"Edited"}


def test_reference_moved_from_tags_to_its_field_counts(api: APIClient):
    note = api.post("/notes", {"title": "Moved", "tags": ["Jn 3:16"]}).json()
    assert found(api, "list", "Jn 3:16") == set()
    api.patch(f"/notes/{note['id']}", {"scripture_refs": "Jn 3:16", "tags": []})
    assert found(api, "list", "Jn 3:16") == {"Moved"}


@pytest.mark.parametrize("scripture", ["by night", "John 22", "x" * 201])
def test_invalid_filter_is_400(api: APIClient, scripture: str):
    for response in (
        api.get("/notes", {"scripture": scripture}),
        api.post("/semantic/search", {"query": "night", "scripture": scripture}),
    ):
        assert response.status_code == 400
        assert response.json()["errors"][0]["param"] == "scripture"


# --- Query plans ----------------------------------------------------------------------------


NOTES, REFERENCES_PER_NOTE = 2_000, 50
# Foreign keys are not checked, which takes too long for so many rows.
FILL = """
SET LOCAL session_replication_role = replica;
INSERT INTO notes (user_id, title, content, preacher, tags, scripture_refs, text_hash,
    created_at, updated_at)
SELECT %(user)s, 'A note', '', '', '{}', '', '', now(), now() FROM generate_series(1, %(notes)s);
INSERT INTO scripture_references (note_id, user_id, start_verse, end_verse)
SELECT notes.id, user_id, verse, verse + n %% 7
FROM notes, generate_series(1, %(each)s) n,
    LATERAL (SELECT (1 + (notes.id * 7 + n) %% 66) * 1000000
        + (1 + (notes.id + n * 3) %% 20) * 1000 + 1 + (notes.id * 3 + n) %% 20 AS verse) v;
SET LOCAL session_replication_role = DEFAULT;
ANALYZE notes, scripture_references;
"""


def test_filter_reads_only_matching_index_entries(api: APIClient, alice: User):
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"user": alice.pk, "notes": NOTES, "each": REFERENCES_PER_NOTE})
    assert ScriptureReference.objects.filter(user=alice).count() == 100_000
    assert api.get("/notes?scripture=John 3:16").json()["total"] > 0
    plans = plans_of(lambda: api.get("/notes?scripture=John 3:16"), "scripture_references")
    assert len(plans) == 2
    for nodes in plans:
        (scan,) = [node for node in nodes if node.get("Index Name") == "references_of_user"]
        assert (scan["Actual Loops"], scan.get("Rows Removed by Filter", 0)) == (1, 0)
        assert 0 < scan["Actual Rows"] < 300
        assert scan["Shared Hit Blocks"] + scan["Shared Read Blocks"] < 300
