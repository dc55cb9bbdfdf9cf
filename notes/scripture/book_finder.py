"""Finds the name of a book among tokens: "1 Cor", "I Corinthians", "First Corinthians", "1. Korinther"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from notes.scripture.book_names import BOOKS, names, systems
from notes.scripture.numerals import ORDINALS
from notes.scripture.tokens import Token, fold, tokenize

# Chinese, Japanese and Korean letters. Words of these scripts may stand together without a space.
_UNSPACED = re.compile(r"[\u3400-\u9fff\uac00-\ud7af]+")
# Between the words of a name.
_JOINTS = (".", "-", "'", "’")


class Name(NamedTuple):
    """A name of one or several books."""

    books: tuple[int, ...]
    """Their numbers, the likeliest first."""
    languages: frozenset[str]
    is_full: bool
    """Whether it is the customary name in one of the languages, and no abbreviation."""


class Found(NamedTuple):
    name: Name
    first: int
    """The index of its first token."""
    end: int
    """The index of the token after it."""
    start: int
    """Its position in the text."""


class _Index(NamedTuple):
    names: dict[str, Name]
    exact: dict[str, Name]
    """Names that differ from another one only in their accents, with these accents."""
    longest: dict[str, int]
    """Of the names with this first word, the number of words of the longest."""


def find_book(tokens: Sequence[Token], first: int) -> Found | None:
    """The longest name that begins with this token."""
    token = tokens[first]
    index = _index()
    key = _first_key(token)
    if key not in index.longest:
        return _find_unspaced(tokens, first) if token.kind == "word" else None
    words, exact, ends = _words(tokens, first, index.longest[key])
    for count in range(len(words), 0, -1):
        name = index.exact.get(" ".join(exact[:count])) or index.names.get(" ".join(words[:count]))
        if name:
            return Found(name, first, ends[count - 1], token.start)
    return None


def _first_key(token: Token) -> str:
    number = ORDINALS.get(token.value)
    return str(number) if number and token.kind == "word" else token.value


def _words(
    tokens: Sequence[Token], first: int, most: int
) -> tuple[list[str], list[str], list[int]]:
    """The next words, as they are compared and as they are spelt, and the index after each."""
    words, exact, ends = [_first_key(tokens[first])], [tokens[first].text.lower()], [first + 1]
    at = _skip_ordinal_suffix(tokens, first)
    while len(words) < most:
        at = _skip_joint(tokens, at)
        if at >= len(tokens) or tokens[at].kind == "sign" or tokens[at].is_on_new_line:
            break
        words.append(tokens[at].value)
        exact.append(tokens[at].text.lower())
        at += 1
        ends.append(at)
    return words, exact, ends


def _skip_ordinal_suffix(tokens: Sequence[Token], first: int) -> int:
    """The index after a number and its ending, as in "1st" and "1º"."""
    following = first + 1
    if tokens[first].kind == "number" and following < len(tokens):
        suffix = tokens[following]
        ordinal = ORDINALS.get(tokens[first].value + suffix.value)
        if (ordinal and not suffix.is_spaced) or suffix.value in ("º", "ª", "°"):
            return following + 1
    return following


def _skip_joint(tokens: Sequence[Token], at: int) -> int:
    is_after_number = at > 0 and tokens[at - 1].kind == "number"
    # "3-John" is the end of a chapter and the start of a book.
    joints = (".",) if is_after_number else _JOINTS
    if at < len(tokens) and tokens[at].value in joints and not tokens[at].is_spaced:
        return at + 1
    return at


def _find_unspaced(tokens: Sequence[Token], first: int) -> Found | None:
    """A name at the end of a word without spaces, such as 请看约翰福音."""
    word = tokens[first].value
    if not _UNSPACED.fullmatch(word):
        return None
    for begin in range(1, len(word)):
        if name := _index().names.get(word[begin:]):
            return Found(name, first, first + 1, tokens[first].start + begin)
    return None


@cache
def _index() -> _Index:
    """Where a name means several books, the one of a standard system comes first, then that of English,
    and then the order of the table."""
    entries: dict[str, list[tuple[int, str, bool]]] = {}
    for abbreviations in systems().values():
        for number, book in enumerate(BOOKS, 1):
            entries.setdefault(_key(abbreviations[book]), []).append((number, "en", False))
    spelt: dict[str, set[str]] = {}
    for language, table in names().items():
        for number, book in enumerate(BOOKS, 1):
            for position, name in enumerate(table.books[book]):
                key = _key(name)
                entries.setdefault(key, []).append((number, language, position == 0))
                spelt.setdefault(key, set()).add(name.lower())
    known = {key: _name(found) for key, found in entries.items()}
    longest: dict[str, int] = {}
    for key in known:
        words = key.split()
        longest[words[0]] = max(longest.get(words[0], 0), len(words))
    return _Index(known, _exact(spelt), longest)


def _exact(spelt: dict[str, set[str]]) -> dict[str, Name]:
    """The names that differ from another one in their accents only, such as Jó and Jo."""
    wanted = {name for same in spelt.values() if len(same) > 1 for name in same}
    entries: dict[str, list[tuple[int, str, bool]]] = {}
    for language, table in names().items():
        for number, book in enumerate(BOOKS, 1):
            for position, name in enumerate(table.books[book]):
                if name.lower() in wanted and fold(name) != name.lower():
                    entry = (number, language, position == 0)
                    entries.setdefault(name.lower(), []).append(entry)
    return {name: _name(found) for name, found in entries.items()}


def _name(entries: Sequence[tuple[int, str, bool]]) -> Name:
    books = tuple(dict.fromkeys(number for number, _, _ in entries))
    languages = frozenset(language for _, language, _ in entries)
    return Name(books, languages, any(is_full for *_, is_full in entries))


def _key(name: str) -> str:
    return " ".join(token.value for token in tokenize(name) if token.kind != "sign")
