"""The names and abbreviations of the books of the Bible, in 13 languages and four standard systems.

They are data, with their sources, in book_names.toml beside this module, and read when first needed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

_CODES = """
Gen Exod Lev Num Deut Josh Judg Ruth 1Sam 2Sam 1Kgs 2Kgs 1Chr 2Chr Ezra Neh Esth Job Ps Prov Eccl Song
Isa Jer Lam Ezek Dan Hos Joel Amos Obad Jonah Mic Nah Hab Zeph Hag Zech Mal
Matt Mark Luke John Acts Rom 1Cor 2Cor Gal Eph Phil Col 1Thess 2Thess 1Tim 2Tim Titus Phlm Heb
Jas 1Pet 2Pet 1John 2John 3John Jude Rev
"""
# The OSIS codes in canonical order: index + 1 is the number of the book, as in pythonbible.
BOOKS: tuple[str, ...] = tuple(_CODES.split())

# The codes of the languages in the table. Chinese has two scripts.
LANGUAGES = ("en", "es", "pt", "fr", "de", "it", "nl", "ko", "zh-hans", "zh-hant", "ru", "tl", "sw")

FILE = Path(__file__).with_name("book_names.toml")


class Language(NamedTuple):
    """A language's names of the books."""

    name: str
    separator: str
    """What is written between chapter and verse."""
    books: Mapping[str, tuple[str, ...]]
    """The names of each book, by OSIS code. The first is the one to show."""


@cache
def names() -> Mapping[str, Language]:
    """The languages, by code: "en", "zh-hans" and so on."""
    tables = {code: table for code, table in _read().items() if code != "systems"}
    return MappingProxyType({code: _language(table) for code, table in tables.items()})


@cache
def systems() -> Mapping[str, Mapping[str, str]]:
    """The abbreviations of each standard system ("osis", "usfm" and so on), by OSIS code."""
    tables = {name: table for name, table in _read()["systems"].items() if name != "sources"}
    return MappingProxyType({name: MappingProxyType(table) for name, table in tables.items()})


def _read() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def _language(table: Mapping[str, Any]) -> Language:
    books = {book: tuple(table["books"][book]) for book in BOOKS}
    return Language(table["name"], table["separator"], MappingProxyType(books))
