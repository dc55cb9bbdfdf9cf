"""Numbers that are written as words: Roman numerals, ordinals, and English as it is spoken."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ROMAN = re.compile(r"(?=.)(?:c{0,3})(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
LONGEST_ROMAN = len("clxxxviii")

# The numbers before the name of a book, in the languages of book_names.toml.
ORDINALS = {
    word: number
    for number, words in {
        1: "i 1st first 1o 1a 1er primera primero primeira primeiro premier premiere prima primo erste"
        " erster erstes eerste una unang kwanza 1e 1re 1ere",
        2: "ii 2nd second segunda segundo deuxieme second seconde seconda secondo zweite zweiter zweites"
        " tweede ikalawa pili 2o 2a 2e 2eme",
        3: "iii 3rd third tercera tercero terceira terceiro troisieme terza terzo dritte dritter drittes"
        " derde ikatlo tatu 3o 3a 3e 3eme",
        4: "iv 4th fourth",
        5: "v 5th fifth",
    }.items()
    for word in words.split()
}

_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPOKEN = {
    **{word: n for n, word in enumerate([*_UNITS, *_TEENS])},
    **{word: 10 * n for n, word in enumerate(_TENS, 2)},
    "oh": 0,
}


def roman(word: str) -> int | None:
    """The value of a Roman numeral up to 399 in lower case, or None."""
    if len(word) > LONGEST_ROMAN or not _ROMAN.fullmatch(word):
        return None
    values = [_ROMAN_VALUES[letter] for letter in word]
    pairs = zip(values, [*values[1:], 0], strict=True)
    return sum(-value if value < following else value for value, following in pairs)


def is_spoken(word: str) -> bool:
    return word in _SPOKEN


def spoken_number(words: Sequence[str]) -> tuple[int, int]:
    """The number with which the words begin, and of how many words it consists; (0, 0) without one.

    "one hundred and nineteen" and "one oh five" are one number, "three sixteen" are two.
    """
    small, used = _below_hundred(words)
    if not used:
        return 0, 0
    if words[used : used + 1] == ["hundred"]:
        return _hundreds(small, words, used + 1)
    if 0 < small < 10 and words[used : used + 1] == ["oh"]:
        unit, more = _below_hundred(words[used + 1 :])
        if more == 1 and 0 < unit < 10:
            return 100 * small + unit, used + 2
    return small, used


def _hundreds(hundreds: int, words: Sequence[str], used: int) -> tuple[int, int]:
    skipped = 1 if words[used : used + 1] == ["and"] else 0
    rest, more = _below_hundred(words[used + skipped :])
    return 100 * hundreds + rest, used + skipped + more if more else used


def _below_hundred(words: Sequence[str]) -> tuple[int, int]:
    if not words or words[0] not in _SPOKEN:
        return 0, 0
    value = _SPOKEN[words[0]]
    if value >= 20 and len(words) > 1 and 0 < _SPOKEN.get(words[1], 0) < 10:
        return value + _SPOKEN[words[1]], 2
    return value, 1
