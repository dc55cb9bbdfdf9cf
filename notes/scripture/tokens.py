"""Text as words, numbers and signs, in which the many ways of writing are made one.

Digits and punctuation of any script become ASCII, letters lose their accents and case. Marks of
Markdown are left out, as in "**John** 3:16".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"(?P<number>\d+)|(?P<word>(?:[^\W\d_][\u0300-\u036f]*)+)|(?P<line>\n)"
    r"|(?P<space>[^\S\n]+)|(?P<mark>[*_`~\[\]\\]+)|(?P<sign>.)"
)
_SIGNS = str.maketrans("：﹕∶；，、﹐．。（）‐‑‒–—−～〜＆", ":::;,,,..()--------&")
# A number with more digits is no chapter or verse.
MAX_DIGITS = 4
TOO_LARGE = 10**MAX_DIGITS


class Token(NamedTuple):
    kind: str
    """word, number or sign."""
    value: str
    """A word in lower case and without accents; ASCII digits; an ASCII sign."""
    text: str
    """As it was written."""
    start: int
    end: int
    is_spaced: bool
    """Whether white space comes before it."""
    is_on_new_line: bool

    @property
    def number(self) -> int:
        return int(self.value) if len(self.value) <= MAX_DIGITS else TOO_LARGE


def tokenize(text: str) -> list[Token]:
    """All tokens, with their positions in the text. Takes time in proportion to its length."""
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[Token]:
    is_spaced = is_on_new_line = False
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind in ("space", "line"):
            is_spaced, is_on_new_line = True, is_on_new_line or kind == "line"
        elif kind != "mark":
            value = _VALUES[kind](match[0])
            yield Token(kind, value, match[0], *match.span(), is_spaced, is_on_new_line)
            is_spaced = is_on_new_line = False


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def fold(word: str) -> str:
    """The word in lower case, without accents, and with usual letters. Syllables of Hangul stay whole."""
    if word.isascii():
        return word.lower()
    letters = unicodedata.normalize("NFKD", word.casefold())
    bare = "".join(letter for letter in letters if not "\u0300" <= letter <= "\u036f")
    return unicodedata.normalize("NFC", bare)


def _digits(number: str) -> str:
    return "".join(str(unicodedata.decimal(digit)) for digit in number)


def _sign(sign: str) -> str:
    return sign.translate(_SIGNS)


_VALUES = {"word": fold, "number": _digits, "sign": _sign}
