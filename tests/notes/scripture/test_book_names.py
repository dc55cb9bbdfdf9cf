"""The table of the books' names: complete, in one form, and with few ambiguous names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from itertools import chain

import pytest
import pythonbible

from notes.scripture.book_names import BOOKS, LANGUAGES, names, systems

MAX_NAME_LENGTH = 40

# Names that two books of a language share, as a reader compares them.
AMBIGUOUS = {
    "en": {"jud": ("Judg", "Jude"), "phi": ("Phil", "Phlm"), "phil": ("Phil", "Phlm")},
    "pt": {"jo": ("Job", "John")},
    "it": {"gn": ("Gen", "Jonah")},
    "zh-hans": {"玛": ("Mal", "Matt")},
    "zh-hant": {"瑪": ("Mal", "Matt")},
}


def normalized(name: str) -> str:
    """Without case and accents, and without the space after a number."""
    letters = unicodedata.normalize("NFD", name.casefold())
    without_accents = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"^(\d) ", r"\1", without_accents)


def test_books_are_in_canonical_order():
    english = names()["en"].books
    for number, code in enumerate(BOOKS, start=1):
        assert pythonbible.Book(number).title in english[code]
    assert len(BOOKS) == len(set(BOOKS)) == 66


def test_names_exist_in_all_languages():
    assert tuple(names()) == LANGUAGES
    for language in names().values():
        assert language.name
        assert language.separator in {":", ","}


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_book_has_a_name(code: str):
    books = names()[code].books
    assert tuple(books) == BOOKS
    assert all(books.values())


@pytest.mark.parametrize("code", LANGUAGES)
def test_names_are_in_one_form(code: str):
    for name in chain.from_iterable(names()[code].books.values()):
        assert name == unicodedata.normalize("NFC", name).strip()
        assert "." not in name
        assert "  " not in name
        assert len(name) <= MAX_NAME_LENGTH


@pytest.mark.parametrize("code", LANGUAGES)
def test_names_of_a_book_differ_in_their_letters(code: str):
    for book, given in names()[code].books.items():
        assert len({normalized(name) for name in given}) == len(given), (book, given)


@pytest.mark.parametrize("code", LANGUAGES)
def test_names_have_one_meaning_except_for_a_few(code: str):
    books = defaultdict(list)
    for book, given in names()[code].books.items():
        for name in given:
            books[normalized(name)].append(book)
    shared = {name: tuple(several) for name, several in books.items() if len(several) > 1}
    assert shared == AMBIGUOUS.get(code, {})


@pytest.mark.parametrize("system", ["osis", "usfm", "catholic", "logos"])
def test_system_has_one_abbreviation_for_each_book(system: str):
    abbreviations = systems()[system]
    assert tuple(abbreviations) == BOOKS
    assert len({normalized(abbreviation) for abbreviation in abbreviations.values()}) == 66


@pytest.mark.parametrize("system", ["osis", "usfm", "catholic", "logos"])
def test_abbreviations_of_systems_are_english_names(system: str):
    for book, abbreviation in systems()[system].items():
        english = {normalized(name) for name in names()["en"].books[book]}
        assert normalized(abbreviation) in english


@pytest.mark.parametrize(
    ("code", "name", "book"),
    [
        ("en", "Revelations", "Rev"),
        ("es", "Hch", "Acts"),
        ("es", "1 de Juan", "1John"),
        ("pt", "Jn", "Jonah"),
        ("pt", "Atos", "Acts"),
        ("fr", "Jc", "Jas"),
        ("fr", "2 lettre aux Corinthiens", "2Cor"),
        ("de", "5 Mose", "Deut"),
        ("de", "Ijob", "Job"),
        ("it", "Gv", "John"),
        ("nl", "Hnd", "Acts"),
        ("ko", "고전", "1Cor"),
        ("ko", "탈출기", "Exod"),
        ("zh-hans", "林后", "2Cor"),
        ("zh-hans", "圣咏集", "Ps"),
        ("zh-hant", "約翰福音", "John"),
        ("zh-hant", "格後", "2Cor"),
        ("ru", "3 Цар", "1Kgs"),
        ("ru", "Ин", "John"),
        ("tl", "Pahayag", "Rev"),
        ("sw", "Mdo", "Acts"),
        ("sw", "2 Fal", "2Kgs"),
    ],
)
def test_usual_name_belongs_to_its_book(code: str, name: str, book: str):
    assert name in names()[code].books[book]
