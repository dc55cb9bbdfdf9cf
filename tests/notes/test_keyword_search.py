"""POST /semantic/search in keyword mode. The notes have no embeddings, unless a test makes them."""

from __future__ import annotations

import html
import random
import re
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from notes.embeddings.pipeline import embed_notes
from notes.embeddings.rollout import default_model
from notes.embeddings.store import save_embedded
from notes.models import CONTENT_MAX_CHARACTERS, Note
from scribes.models import User
from tests.helpers.plans import plans_of


def write(api: APIClient, content: str = "", **fields) -> int:
    response = api.post("/notes", {"title": "A note", "content": content} | fields)
    assert response.status_code == 201
    note_id: int = response.json()["id"]
    return note_id


def search(api: APIClient, query: str, **options) -> list[dict[str, Any]]:
    response = api.post("/semantic/search", {"query": query, "mode": "keyword"} | options)
    assert response.status_code == 200
    body = response.json()
    assert body["degraded"] == []
    results: list[dict[str, Any]] = body["results"]
    return results


def found(api: APIClient, query: str) -> list[int]:
    return [result["note"]["id"] for result in search(api, query, limit=100)]


# --- Matching -------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["title", "preacher", "content", "scripture_refs", "tags"])
def test_note_is_found_at_once_by_each_field(api: APIClient, field: str):
    text = "Nicodemus, a ruler"
    fields: dict[str, Any] = {field: [text] if field == "tags" else text}
    note = write(api, **fields)
    write(api, "Another one came.")
    for query in ("Nicodemus", "nicodemus", "what was it that Nicodemus asked?"):
        (result,) = search(api, query)
        assert result["note"]["id"] == note
        assert (result["matched_by"], result["similarity_score"]) == ("keyword", None)


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("They were baptizing.", "baptized"),
        ("He baptized them", "BAPTIZES"),
        ("Of mercies", "mercy"),
        ("**Mercy**, said he", "mercy"),
        ("A so-called prophet", "so-called"),
        ("Grüße an Köln", "köln"),
        ("So “Nicodemus” asked", "Nicodemus"),
        ("He—Nicodemus—asked…", "Nicodemus"),
        ("of\u00a0Nicodemus’s, «asked»", "nicodemus asked"),
        ("🙏Amen🙏", "amen"),
        ("平安 と 恵み", "平安"),
    ],
)
def test_word_is_found_in_other_forms(api: APIClient, content: str, query: str):
    note = write(api, content)
    assert found(api, query) == [note]


def test_edited_note_is_found_by_new_words_only(api: APIClient):
    note = write(api, "Nicodemus came.")
    api.patch(f"/notes/{note}", {"content": "Lazarus came."})
    assert (found(api, "Nicodemus"), found(api, "Lazarus")) == ([], [note])
    api.delete(f"/notes/{note}")
    assert found(api, "Lazarus") == []


def test_search_never_finds_notes_of_other_users(api: APIClient, bobs_api: APIClient, alice: User):
    write(api, "He came by night.")
    mine = write(bobs_api, "She came by night.")
    for query in ("night", '"by night"', "-day", "night -day", "user", f"user {alice.pk}"):
        assert set(found(bobs_api, query)) <= {mine}
    assert found(bobs_api, "night") == found(bobs_api, "-day") == [mine]


# --- Order ----------------------------------------------------------------------------------


def test_rare_words_rank_higher(api: APIClient):
    for _ in range(8):
        write(api, "The Lord spoke.")
    rare = write(api, "The sabbath came.")
    results = search(api, "the Lord of the sabbath")
    assert len(results) == 9
    assert results[0]["note"]["id"] == rare


def test_title_ranks_above_tags_and_tags_above_text(api: APIClient):
    content = write(api, "Of Nicodemus it is said")
    tags = write(api, "Of him it is said", tags=["Nicodemus"])
    title = write(api, "Of him it is said", title="Nicodemus")
    assert found(api, "Nicodemus") == [title, tags, content]


def test_more_matching_words_rank_higher(api: APIClient):
    one = write(api, "Grace came.")
    both = write(api, "Grace and truth came.")
    other = write(api, "Truth came.")
    assert found(api, "grace truth") == [both, one, other]


def test_keyword_search_pages_are_consistent(api: APIClient):
    for n in range(7):
        write(api, "By night. " * (n % 3 + 1))
    whole = found(api, "night")
    pages = [search(api, "night", limit=3, offset=n) for n in (0, 3, 6, 9)]
    assert [result["note"]["id"] for page in pages for result in page] == whole
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    scores = [result["score"] for page in pages for result in page]
    assert scores == sorted(scores, reverse=True)


# --- Query syntax ---------------------------------------------------------------------------


@pytest.fixture
def three(api: APIClient) -> list[int]:
    texts = ["Ye must be born anew.", "Anew a child is born.", "He wept."]
    return [write(api, text) for text in texts]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("born anew", {0, 1}),
        ('"born anew"', {0}),
        ("“born anew”", {0}),
        ('"born anew" child', set()),
        ('"born anew" or child', {0, 1}),
        ("born -child", {0}),
        ("-born", {2}),
        ('-"born anew"', {1, 2}),
        ("-born -wept", set()),
        ("child-born", {0, 1}),
        ("born - child", {0, 1}),
        ('"born', {0, 1}),
        ("born or wept", {0, 1, 2}),
    ],
)
def test_quotes_and_minus_are_operators(
    api: APIClient, three: list[int], query: str, expected: set[int]
):
    assert set(found(api, query)) == {three[n] for n in expected}


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("query", ["the", "to be or not to be", '"the"', "-the", "?", "<->", "'\\"])
def test_stop_words_find_nothing(api: APIClient, query: str):
    assert search(api, query) == []


SYNTAX = [
    "'",
    "&",
    "|",
    "!",
    "(",
    ")",
    ":",
    "*",
    "\\",
    "<->",
    '"',
    "-",
    "%",
    "%s",
    "{n}",
    ":A",
    "$1",
]
LONG = {
    "multibyte": "é" * 2000,
    "quotes": '"' * 2000,
    "words": "".join(f"w{n} " for n in range(400))[:2000],
    "letters": "b " * 999 + "c",
    "hyphens": "b-" * 999 + "c",
    "minus": "b -b " * 399,
    "operators": "b & " * 499 + "c",
    "emoji": "🙏" * 2000,
    "backslashes": "\\" * 2000,
    "slashes": "b/c" * 600,
}


def test_random_syntax_is_never_an_error(api: APIClient):
    note = write(api, 'By night, \'tis said: a & b | !c (d) e:* \\f <-> "g" %s {n} night')
    dice = random.Random(1)
    for _ in range(40):
        parts = dice.choices([*SYNTAX, " ", "night", "day"], k=dice.randint(1, 8))
        search(api, "".join(parts).strip() or "\\")
    for sign in SYNTAX:
        assert found(api, f"night {sign}") == found(api, f"{sign} night") == [note], sign


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("query", LONG.values(), ids=LONG)
def test_long_queries_are_answered(api: APIClient, query: str):
    assert search(api, query) == []


@pytest.mark.parametrize("query", ["a\0b", "\0", "\ud800"])
def test_text_postgresql_cannot_store_is_400(api: APIClient, query: str):
    body = f'{{"query": "night {query.encode("unicode-escape").decode()}", "mode": "keyword"}}'
    body = body.replace("\\x", "\\u00")
    response = api.post("/semantic/search", body, content_type="application/json")
    assert response.status_code == 400


# --- Excerpts -------------------------------------------------------------------------------


LONG_NOTE = (
    "# First\n\n{0}\n\n## Second\n\n{0} It was **Nicodemus** who came. {0}\n\n# Third\n\n{0}\n"
)


def test_passage_is_the_part_with_the_words(api: APIClient):
    content = LONG_NOTE.format("He went on and on about it, for hours. " * 30)
    write(api, content)
    (result,) = search(api, "Nicodemus")
    passage = result["passage"]
    assert passage["text"] == content[passage["char_start"] : passage["char_end"]]
    assert "Nicodemus" in passage["text"]
    assert len(passage["text"]) < len(content) / 4
    assert passage["heading"] == "Second"
    assert "<mark>Nicodemus</mark>" in passage["excerpt"]
    assert passage["excerpt"].startswith("…")
    assert len(passage["excerpt"]) < 350


def test_note_without_text_is_found_by_its_title(api: APIClient):
    note = write(api, "", title="Nicodemus")
    blank = write(api, " \n ", title="Nicodemus")
    results = search(api, "Nicodemus")
    assert {result["note"]["id"] for result in results} == {note, blank}
    for result in results:
        assert result["passage"] == {
            "char_start": 0,
            "char_end": 0,
            "text": "",
            "heading": "",
            "excerpt": "",
        }


def test_note_found_by_title_shows_its_start(api: APIClient):
    write(api, "He came. " * 200, title="Nicodemus")
    (result,) = search(api, "Nicodemus")
    assert result["passage"]["char_start"] == 0
    assert result["passage"]["excerpt"].startswith("He came. He came.")
    assert "<mark>" not in result["passage"]["excerpt"]


@pytest.mark.parametrize(
    "content",
    [
        "By night <script>alert('night')</script> & by day",
        '<b>night</b> <!-- night --> <img src=x onerror="night()"> &lt;night&gt; &amp;',
        "By night, see https://example.com/night?a=b&c=d <https://night.example> or night@example.com!",
        "night</mark><mark>night",
        "a well-known night-watch, night/day, -night +night night's “night”",
        "| night | day |\n|---|---|\n| `night` | 1 < 2 |",
        "🙏🏽 night 👨‍👩‍👧‍👦night👨‍👩‍👧‍👦 & <night>",
        "ויהי night ערב‎ & قال night السلام",
    ],
)
def test_excerpt_is_the_text_as_html(api: APIClient, content: str):
    write(api, content)
    (result,) = search(api, "night")
    excerpt = result["passage"]["excerpt"]
    assert "<mark>night</mark>" in excerpt
    text = re.sub(r"</?mark>", "", excerpt)
    assert "<" not in text
    assert html.unescape(text) == content == result["passage"]["text"]


@pytest.mark.parametrize(
    ("text", "query", "highlighted"),
    [
        ("בראשית ברא אלהים את השמים", "אלהים", "<mark>אלהים</mark>"),
        ("في البدء خلق الله السماوات", "الله", "<mark>الله</mark>"),
        ("👨‍👩‍👧 The família & 🙏🏽 praying 🙏🏽", "pray", "<mark>praying</mark>"),
    ],
)
def test_words_of_any_script_are_highlighted(
    api: APIClient, text: str, query: str, highlighted: str
):
    """Even if the excerpt is cut from a longer text."""
    content = "🙏🏽 ה " * 40 + text + " 🙏🏽 ה" * 40
    write(api, content)
    (result,) = search(api, query)
    excerpt = result["passage"]["excerpt"]
    assert excerpt.count("<mark>") == excerpt.count("</mark>") == 1
    assert highlighted in excerpt
    assert html.unescape(re.sub(r"</?mark>", "", excerpt)).strip("…") in content


MARKS = "\ue001By \ue000 night \ue000 and \ue001 d\ue000ay\ue000"


def test_mark_characters_in_a_note_are_ignored(api: APIClient):
    write(api, MARKS)
    (result,) = search(api, "by night")
    assert result["passage"]["text"] == MARKS
    assert result["passage"]["excerpt"] == "By  <mark>night</mark>  and  day"


def test_mark_characters_are_ignored_in_every_mode(api: APIClient):
    note = Note.objects.get(pk=write(api, MARKS))
    model = default_model()
    save_embedded(embed_notes([note], model), model)
    expected = {"semantic": "semantic", "hybrid": "both", "keyword": "keyword"}
    for mode, matched_by in expected.items():
        (result,) = search(api, "by night", mode=mode, min_similarity=-1)
        assert result["matched_by"] == matched_by
        assert re.sub(r"</?mark>", "", result["passage"]["excerpt"]) == "By  night  and  day"
        assert ("<mark>" in result["passage"]["excerpt"]) == (mode != "semantic")


# --- Extremes -------------------------------------------------------------------------------


def test_note_exceeding_a_tsvector_is_found_by_its_start(api: APIClient):
    """A tsvector is limited to 1 MB."""
    dice = random.Random(1)
    words = [f"{dice.getrandbits(44):011x}z" for _ in range(CONTENT_MAX_CHARACTERS // 13)]
    note = write(api, " ".join(words), title="Nicodemus", tags=["ruler"])
    for query in (words[0], words[7000], "Nicodemus", "ruler"):
        assert found(api, query) == [note]
    assert found(api, words[-1]) == []
    api.patch(f"/notes/{note}", {"content": words[-1]})
    assert found(api, words[-1]) == [note]


@pytest.mark.parametrize(
    "content", ["🙏" * 250_000, "x" * CONTENT_MAX_CHARACTERS], ids=["emoji", "x"]
)
def test_huge_word_does_not_break_search(api: APIClient, content: str):
    note = write(api, content, title="Nicodemus")
    (result,) = search(api, "Nicodemus")
    assert result["note"]["id"] == note
    assert content.startswith(result["passage"]["text"])


# --- Query plans ----------------------------------------------------------------------------


FILL = """
INSERT INTO notes (user_id, title, content, preacher, tags, scripture_refs, text_hash,
    created_at, updated_at)
SELECT %s, 'A note', 'He came by night, and ' || n, '', '{}', '', '', now(), now()
FROM generate_series(1, 3000) n;
SELECT gin_clean_pending_list('notes_words');
ANALYZE notes;
"""


@pytest.mark.parametrize("query", ["who came by night?", '"by night"', "night -day"])
def test_search_reads_no_notes_of_other_users(api: APIClient, bob: User, query: str):
    mine = {write(api, "She came by night.") for _ in range(5)}
    with connection.cursor() as cursor:
        cursor.execute(FILL, [bob.pk])
    assert set(found(api, query)) == mine
    (nodes,) = plans_of(lambda: search(api, query), "words @@")
    (index,) = [node for node in nodes if node.get("Index Name") == "notes_words"]
    scans = [node for node in nodes if node.get("Relation Name") == "notes"]
    assert {index["Actual Rows"]} | {scan["Actual Rows"] for scan in scans} == {5}
    (heap,) = [scan for scan in scans if "words @@" in scan.get("Recheck Cond", "")]
    assert heap["Node Type"] == "Bitmap Heap Scan"
    assert heap["Rows Removed by Index Recheck"] == heap["Lossy Heap Blocks"] == 0
    assert heap["Exact Heap Blocks"] <= 5
