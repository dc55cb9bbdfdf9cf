"""How references are read, in the field for references and in the text of a note."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notes.scripture.book_names import BOOKS, names, systems
from notes.scripture.canon import chapter_count, is_single_chapter, verse_count
from notes.scripture.references import MAX_SCANNED_CHARACTERS, parse_note
from notes.scripture.verse_range import BOOK_SIZE, CHAPTER_SIZE

CASES = [
    json.loads(line)
    for line in Path(__file__).with_name("cases.jsonl").read_text(encoding="utf-8").splitlines()
]

JOHN, PSALMS, ROMANS = 43, 19, 45


def verse(book: int, chapter: int, number: int) -> int:
    return book * BOOK_SIZE + chapter * CHAPTER_SIZE + number


def in_field(text: str) -> list[tuple[int, int]]:
    return [tuple(verses) for verses in parse_note(text, "").references]  # type: ignore[misc]


def in_text(text: str) -> list[tuple[int, int]]:
    return [tuple(verses) for verses in parse_note("", text).references]  # type: ignore[misc]


# --- Cases from public reports --------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_case_is_found_by_its_search_or_not(case: dict[str, Any]):
    found = (in_field if case["where"] == "scripture_refs" else in_text)(case["text"])
    searched = in_field(case["search"])
    assert searched
    touches = any(a[0] <= b[1] and b[0] <= a[1] for a in found for b in searched)
    assert touches is case["found"], found


# --- Names ----------------------------------------------------------------------------------

ABBREVIATIONS = [
    pytest.param(abbreviation, BOOKS.index(code) + 1, id=f"{system} {abbreviation}")
    for system, books in systems().items()
    for code, abbreviation in books.items()
]
# Names that are another book's in a language that comes first.
ELSEWHERE = {
    "玛", "瑪", "Mc", "Hb", "So", "És", "Es", "Ac", "Jn", "Gl", "Gn", "Jc", "Js", "Pr", "Re", "Ab", "Hes",
    "Jud", "Phi", "Phil",
}  # fmt: skip


def names_and_books() -> Iterator[tuple[str, int]]:
    for language in names().values():
        for book, code in enumerate(BOOKS, 1):
            yield from ((name, book) for name in language.books[code] if name not in ELSEWHERE)


@pytest.mark.parametrize(("abbreviation", "book"), ABBREVIATIONS)
def test_standard_abbreviation_is_read(abbreviation: str, book: int):
    expected = [(verse(book, 1, 1),) * 2]
    for text in (f"{abbreviation} 1:1", f"{abbreviation}. 1:1", f"{abbreviation}1:1"):
        assert in_field(text) == expected, text


def test_names_of_all_languages_are_read():
    wrong = [
        (name, book)
        for name, book in names_and_books()
        if in_field(f"{name} 1:1") != [(verse(book, 1, 1),) * 2]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1 John 3:16",
            "I John 3:16",
            "1st John 3:16",
            "First John 3:16",
            "1John3:16",
            "1. John 3:16",
        ),
        *("1 Johannes 3,16", "1. Johannes 3,16", "Erster Johannes 3,16", "Primera de Juan 3:16"),
        *("1ª Juan 3:16", "1ère Jean 3:16", "Prima Giovanni 3,16", "1 Иоанна 3:16", "요한1서 3:16"),
        *("约翰一书 3:16", "約翰一書3：16", "1 Yohana 3:16", "1JN.3.16", "1John.3.16"),
        *(
            "１ Ｊｏｈｎ ３：１６",
            "**1 John** 3:16",
            "[[1 John 3:16]]",
            "_1 John_ 3.16",
        ),
    ],
)
def test_numbered_book_is_read_in_many_forms(text: str):
    assert in_field(text) == [(verse(62, 3, 16),) * 2]


def test_accents_tell_names_apart():
    assert in_field("Jó 3:2") == [(verse(18, 3, 2),) * 2]
    assert in_field("Jo 3:2") == [(verse(JOHN, 3, 2),) * 2]


# --- Chapters and verses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("John 3:16-18, 21", [(3016, 3018), (3021, 3021)]),
        ("John 3:16; 4:1-3", [(3016, 3016), (4001, 4003)]),
        ("John 3:16b-17a", [(3016, 3017)]),
        ("John 3:16f", [(3016, 3017)]),
        ("John 3:16ff.", [(3016, 3036)]),
        ("John 3 verse 16", [(3016, 3016)]),
        ("John chapter 3, verses 16 to 18", [(3016, 3018)]),
        ("John ch. 3 vv. 16-18", [(3016, 3018)]),
        ("John iii. 16", [(3016, 3016)]),
        ("Johannes 3,16.18-20; 4,1", [(3016, 3016), (3018, 3020), (4001, 4001)]),
        ("요한복음 3장 16절", [(3016, 3016)]),
        ("约翰福音3章16-18节", [(3016, 3018)]),
        ("请看约翰福音3：16", [(3016, 3016)]),
        ("John three sixteen", [(3016, 3016)]),
        ("John three verses sixteen through eighteen", [(3016, 3018)]),
        ("John 3:16 and 18", [(3016, 3016), (3018, 3018)]),
        ("John 3 16", [(3016, 3016)]),
        ("John 3:16 John 4:1", [(3016, 3016), (4001, 4001)]),
    ],
)
def test_chapters_and_verses_are_read(text: str, expected: list[tuple[int, int]]):
    start = JOHN * BOOK_SIZE
    assert in_field(text) == [(start + first, start + last) for first, last in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Psalm one hundred and nineteen verse one oh five", (119, 105, 105)),
        ("Psalm one nineteen", (119, 1, 176)),
        ("Psalm twenty-three", (23, 1, 6)),
        ("Ps. xxiii", (23, 1, 6)),
        ("Ps 23,24", (23, 1, 6)),
        ("Psalm 119:1–8", (119, 1, 8)),
    ],
)
def test_psalm_is_read(text: str, expected: tuple[int, int, int]):
    chapter, first, last = expected
    assert in_field(text)[0] == (verse(PSALMS, chapter, first), verse(PSALMS, chapter, last))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("3 John 15", "3 John 14"),
        ("Joel 4:2", "Joel 3:2"),
        ("Maleachi 3,19", "Malachi 4:1"),
        ("1-2 Kings", "1 Kings; 2 Kings"),
        ("1, 2 & 3 John", "1 John; 2 John; 3 John"),
        ("Mal 4 - Matt 1; 2:1", "Mal 4; Matt 1; Matt 2:1"),
        ("Phil 6", "Philemon 6"),
        ("Jude 1-5", "Jude 1:1-5"),
    ],
)
def test_reference_means_the_same_as_another(text: str, same: str):
    assert in_field(text) == in_field(same) != []


@pytest.mark.parametrize(
    ("field", "unparsed"),
    [
        ("Genesis 0", ["Genesis 0"]),
        ("Genesis 0-2", ["Genesis 0-2"]),
        ("Psalm 151:1; Jn 3:16", ["Psalm 151:1"]),
        ("John 3:16, 99", ["99"]),
        ("John 3:16-99", ["John 3:16-99"]),
        ("John 3:16; see the hymn", ["see the hymn"]),
    ],
)
def test_part_that_is_not_understood_is_quoted(field: str, unparsed: list[str]):
    assert parse_note(field, "").unparsed == unparsed


# --- Texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Mark 5 boxes before noon, and 3 more.",
        "On March 2. The one thing that was left.",
        "The standard is X3J11, and printf(3) is part of it.",
        "See Act I, Scene 7, and act 5.",
        "There were numbers 13,000 and numbers 0, 1.",
        "At 3:16 he left. He was there at 3:16.",
        "Daniel 6:15 pm pickup, Mark 5:30 am, EST 5:10.",
        "Version rev. 2.1.3, Rev 2.1 of the spec.",
        "[MIT] v. To fall. At MIT one can.",
        "It takes 5 min, is 12 long, and am 9 years old.",
    ],
)
def test_text_without_references_has_none(text: str):
    assert in_text(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "He said (John 3:16) that.",
        "He said in john 3:16 that.",
        "As in John 3:16-17, 3 men came, and 20 more.",
        "“Thus” — Jn 3:16; 12 people heard it.",
    ],
)
def test_reference_in_a_text_is_found(text: str):
    ((start, end),) = in_text(text)
    assert (start, end) in [(verse(JOHN, 3, 16), verse(JOHN, 3, last)) for last in (16, 17)]


# --- Properties -----------------------------------------------------------------------------


@st.composite
def canonical_ranges(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """A book, a chapter, and its first and last verse."""
    book = draw(st.integers(1, len(BOOKS)))
    chapter = draw(st.integers(1, chapter_count(book)))
    first = draw(st.integers(1, verse_count(book, chapter)))
    return book, chapter, first, draw(st.integers(first, verse_count(book, chapter)))


STYLES = (
    "{name} {chapter}:{first}-{last}",
    "{name}. {chapter}.{first}–{last}",
    "{name} {chapter} : {first} — {last}",
    "({name} {chapter}:{first} to {last})",
    "**{name}** {chapter}:{first}a-{last}b (NIV)",
    "{name} chapter {chapter} verses {first} through {last}",
    "cf. {name} {chapter}：{first}-{last}",
)


@given(canonical_ranges(), st.sampled_from(STYLES), st.data())
def test_range_is_read_in_any_style(
    verses: tuple[int, int, int, int], style: str, data: st.DataObject
):
    book, chapter, first, last = verses
    usual = [name for name in names()["en"].books[BOOKS[book - 1]] if name not in ELSEWHERE]
    name = data.draw(st.sampled_from(usual))
    text = style.format(name=name, chapter=chapter, first=first, last=last)
    assert in_field(text) == [(verse(book, chapter, first), verse(book, chapter, last))], text


@given(
    st.lists(canonical_ranges(), min_size=1, max_size=5, unique=True),
    st.sampled_from(["; ", ", ", "\n"]),
)
def test_references_one_after_another_are_all_read(
    ranges: list[tuple[int, int, int, int]], separator: str
):
    text = separator.join(
        f"{names()['en'].books[BOOKS[book - 1]][0]} {chapter}:{first}-{last}"
        for book, chapter, first, last in ranges
    )
    expected = [(verse(b, c, first), verse(b, c, last)) for b, c, first, last in ranges]
    assert in_field(text) == expected


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str):
    parse_note(text, text)


@given(
    st.lists(
        st.sampled_from(
            [
                "John 1 John",
                "3",
                ":",
                "16",
                "-",
                ",",
                ";",
                ".",
                " ",
                "\n",
                "Gen",
                "v",
                "ff",
                "one",
                "and",
                "xx",
                "至",
                "太",
                "a",
                "(",
            ]
        ),
        max_size=40,
    )
)
def test_ranges_are_valid_whatever_is_read(parts: list[str]):
    for text in ("".join(parts), " ".join(parts)):
        for start, end in in_field(text) + in_text(text):
            assert start <= end
            assert start // BOOK_SIZE == end // BOOK_SIZE


def test_single_chapter_books_are_known():
    single = [code for number, code in enumerate(BOOKS, 1) if is_single_chapter(number)]
    assert single == ["Obad", "Phlm", "2John", "3John", "Jude"]


def test_only_the_beginning_of_a_long_text_is_searched():
    assert in_text("1:1;" * (MAX_SCANNED_CHARACTERS // 4) + " John 3:16") == []
