"""Reads numbers, names and single words among tokens, by their indexes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from notes.scripture.book_finder import Found, find_book
from notes.scripture.numerals import is_spoken, roman, spoken_number
from notes.scripture.tokens import Token, words

RANGE_WORDS = words("to through thru bis tot til по")
MAX_NUMBER_WORDS = 6


class Number(NamedTuple):
    value: int
    end: int
    """The index of the token after it."""
    kind: str
    """digits, roman or spoken."""


class TokenReader:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens

    def _at(self, at: int) -> Token | None:
        return self._tokens[at] if at < len(self._tokens) else None

    def _number(self, at: int, *, is_first: bool = False) -> Number | None:
        token = self._at(at)
        if token is None or token.kind == "sign":
            return None
        if token.kind == "number":
            return Number(token.number, at + 1, "digits")
        if is_spoken(token.value):
            spoken = self._spoken(at)
            value, count = spoken_number([word for word, _ in spoken])
            return Number(value, spoken[count - 1][1], "spoken")
        value_of_roman = roman(token.value) if is_first else None
        return Number(value_of_roman, at + 1, "roman") if value_of_roman else None

    def _spoken(self, at: int) -> list[tuple[str, int]]:
        """The next words, each with the index after it. "twenty-three" are two."""
        spoken: list[tuple[str, int]] = []
        while len(spoken) < MAX_NUMBER_WORDS and (token := self._at(at)) and token.kind == "word":
            spoken.append((token.value, at + 1))
            joint = self._at(at + 1)
            at += 2 if joint and joint.value == "-" and not joint.is_spaced else 1
        return spoken

    def _skip(self, at: int, accepted: frozenset[str]) -> int:
        """The index after a dot, one of the words, and a dot, as far as they are there."""
        if (token := self._at(at)) and token.value == ".":
            at += 1
        if self._is_word(at, accepted):
            at += 1
            if (token := self._at(at)) and token.value == ".":
                at += 1
        return at

    def _is_word(self, at: int, accepted: frozenset[str]) -> bool:
        token = self._at(at)
        return token is not None and token.value in accepted

    def _is_dash(self, at: int) -> bool:
        token = self._at(at)
        return token is not None and (token.value == "-" or token.value in RANGE_WORDS)

    def _name_at(self, at: int) -> Found | None:
        token = self._at(at)
        if token is None or token.kind == "sign":
            return None
        found = find_book(self._tokens, at)
        # A number alone is no name, and "v" or "f" neither.
        return found if found and found.first == at else None

    def _starts_other_book(self, at: int) -> bool:
        """Whether a number is that of the next book, as in "Gen 1:1, 2 John 3"."""
        token = self._at(at)
        if token is None or token.kind == "sign":
            return False
        found = self._name_at(at)
        return found is not None and (found.end > at + 1 or token.kind == "word")
