"""Reads the chapters and verses after the name of a book: "3:16-18, 21; 4:1ff".

Whether a number is a chapter or a verse follows from the sign before it, from what came before, and from
which chapters and verses the book has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from notes.scripture.book_finder import Found
from notes.scripture.canon import (
    Place,
    first_verse,
    is_single_chapter,
    ranges_between,
    verse_count,
    verse_number,
)
from notes.scripture.token_reader import RANGE_WORDS, Number, TokenReader
from notes.scripture.tokens import Token, words
from notes.scripture.verse_range import VerseRange

CHAPTER_WORDS = words(
    "chapter chapters ch chap chaps cap caps kapitel kap hoofdstuk glava гл глава 第"
)
CHAPTER_ENDINGS = words("장 章 篇 편")
VERSE_WORDS = words("verse verses v vv ver vs vers verset versets versiculo versiculos стих ст 第")
VERSE_ENDINGS = words("절 节 節")
AND_WORDS = words("and und y e et en и na og")
# Of a verse: its first or second part.
VERSE_PARTS = set("abcde")
NEXT_WORDS = {"f": 1, "ff": None, "ss": None, "sq": 1, "sqq": None}
CONNECTING_WORDS = AND_WORDS | RANGE_WORDS | NEXT_WORDS.keys()
# Languages that write "3,16" for chapter 3, verse 16.
COMMA_LANGUAGES = words("de it es fr pt nl ru")


class Point(NamedTuple):
    """A chapter, a verse, or both."""

    chapter: int | None
    verse: int | None
    end: int
    sign: str = ""
    """What stands between chapter and verse: a sign, "word", "space" or nothing."""
    kind: str = "digits"


class Item(NamedTuple):
    """A place, or a range between two."""

    first: Place
    last: Place
    begin: int
    end: int
    """The indexes of its first token and of the token after it."""
    sign: str
    kind: str

    @property
    def ranges(self) -> list[VerseRange]:
        return ranges_between(self.first, self.last)


class Locators(NamedTuple):
    items: list[Item]
    invalid: list[Item]
    """Those that name no verse: such a chapter or verse does not exist, or the range is backwards."""
    end: int


class LocatorReader(TokenReader):
    """Reads what follows the name of a book, which is taken for the book with this number."""

    def __init__(self, tokens: Sequence[Token], found: Found, book: int, *, in_field: bool) -> None:
        super().__init__(tokens)
        self._languages = found.name.languages
        self._after_name = found.end
        self._book = book
        self._in_field = in_field
        self._comma_separates = False

    def read(self) -> Locators:
        items: list[Item] = []
        invalid: list[Item] = []
        at = self._skip(self._after_name, CHAPTER_WORDS)
        item = self._first_item(at)
        end = self._after_name
        while item:
            (items if item.ranges else invalid).append(item)
            end = item.end
            if not items:
                break
            # After "Mal 4 - Matt 1; 2:1", the book is Matthew.
            self._book = item.last.book
            item = self._next_item(item)
        return Locators(items, invalid, end)

    # --- Items ------------------------------------------------------------------------------

    def _first_item(self, at: int) -> Item | None:
        if is_single_chapter(self._book) and self._is_word(at, VERSE_WORDS):
            verses = self._skip(at, VERSE_WORDS)
            return self._item(verses, self._verse(verses, 1))
        if self._starts_other_book(at):
            return None
        return self._item(at, self._point(at, is_first=True))

    def _next_item(self, before: Item) -> Item | None:
        at, sign = self._after_separator(before.end)
        if not sign or self._starts_other_book(at):
            return None
        chapter = before.last.chapter if before.last.verse else None
        if self._is_word(at, VERSE_WORDS):
            at = self._skip(at, VERSE_WORDS)
        elif sign in (";", "\n") or self._is_word(at, CHAPTER_WORDS):
            at, chapter = self._skip(at, CHAPTER_WORDS), None
        point = self._point(at, chapter)
        if point is None or not self._may_continue(point, sign):
            return None
        item = self._item(at, point)
        if item and not item.ranges and before.last.verse and not point.sign:
            # "Rom 8:28; 30": there is no chapter 30.
            item = self._item(at, self._verse(at, before.last.chapter or 1)) or item
        return item

    def _may_continue(self, point: Point, sign: str) -> bool:
        """In a text, a bare number that is followed by a word counts things: "John 3:16, 20 men"."""
        if point.sign or self._in_field:
            return True
        if sign in (";", "\n"):
            return False
        return not self._is_counted(point.end)

    def _item(self, begin: int, point: Point | None) -> Item | None:
        if point is None:
            return None
        first = Place(self._book, point.chapter, point.verse)
        end, last = point.end, first
        following = self._at(end)
        if following and following.value in NEXT_WORDS and self._ends_word(end):
            last, end = self._following(first, NEXT_WORDS[following.value]), end + 1
        elif until := self._until(end, first):
            last, end = until
        return Item(first, last, begin, end, point.sign, point.kind)

    def _following(self, first: Place, count: int | None) -> Place:
        """The last of the places that "f" (one more) or "ff" (to the end) stand for."""
        book, chapter, verse = first
        if verse is None:
            return Place(book, chapter + count if chapter and count else None)
        return Place(book, chapter, verse + count if count else None)

    def _until(self, at: int, first: Place) -> tuple[Place, int] | None:
        """The end of a range that began with this place, and the index after it."""
        if not self._is_dash(at):
            return None
        begin = self._skip(self._skip(at + 1, CHAPTER_WORDS), VERSE_WORDS)
        if other := self._name_at(begin):
            return self._until_book(other)
        point = self._point(begin, first.chapter if first.verse else None)
        return (Place(self._book, point.chapter, point.verse), point.end) if point else None

    def _until_book(self, found: Found) -> tuple[Place, int] | None:
        for book in found.name.books:
            reader = LocatorReader(self._tokens, found, book, in_field=self._in_field)
            at = reader._skip(found.end, CHAPTER_WORDS)
            point = reader._point(at, is_first=True)
            if point and first_verse(place := Place(book, point.chapter, point.verse)):
                return place, point.end
        if self._in_field and not self._number(found.end):
            return Place(found.name.books[0]), found.end
        # The name is there, but the range ends nowhere.
        return Place(found.name.books[0], 0), found.end

    # --- Points -----------------------------------------------------------------------------

    def _point(
        self, at: int, chapter: int | None = None, *, is_first: bool = False
    ) -> Point | None:
        """A chapter and a verse, or a bare number: a verse of this chapter, or else a chapter."""
        number = self._number(at, is_first=is_first)
        if number is None:
            return None
        verse, sign = self._verse_of(number)
        if verse and self._is_one_number(number, verse):
            number = Number(number.value * 100 + verse.value, verse.end, "spoken")
            verse, sign = self._verse_of(number)
        if verse:
            return Point(number.value, verse.value, self._after_verse(verse.end), sign, number.kind)
        return self._bare_point(number, chapter, is_first=is_first)

    def _verse_of(self, chapter: Number) -> tuple[Number | None, str]:
        """The verse that follows a chapter, and the sign between them."""
        after = self._after_chapter(chapter)
        at, sign = self._verse_at(after, chapter, has_ending=after > chapter.end)
        return (self._number(at) if sign else None), sign

    def _after_chapter(self, chapter: Number) -> int:
        """The index after the word that may end a chapter: 3장."""
        return chapter.end + self._is_word(chapter.end, CHAPTER_ENDINGS)

    def _bare_point(self, number: Number, chapter: int | None, *, is_first: bool) -> Point:
        """A verse of this chapter, or of the only one; else a chapter. "Jude 1" is all of Jude."""
        after = self._after_chapter(number)
        is_whole = number.value == 1 and is_first and not self._is_dash(after)
        if chapter is None and is_single_chapter(self._book) and not is_whole:
            chapter = 1
        if chapter is None:
            return Point(number.value, None, after, "", number.kind)
        return Point(chapter, number.value, self._after_verse(number.end), "", number.kind)

    def _is_one_number(self, chapter: Number, verse: Number) -> bool:
        """ "Psalm one nineteen" is Psalm 119, since Psalm 1 has no verse 19."""
        if chapter.kind != verse.kind or verse.kind != "spoken" or verse.value < 10:
            return False
        exists = verse.value <= verse_count(self._book, chapter.value)
        return not exists and verse_count(self._book, chapter.value * 100 + verse.value) > 0

    def _verse(self, at: int, chapter: int) -> Point | None:
        """A bare number that is a verse of this chapter."""
        number = self._number(at)
        return self._bare_point(number, chapter, is_first=False) if number else None

    def _after_verse(self, at: int) -> int:
        """The index after the letter or the word that may end a verse: 28b, 16절."""
        token = self._at(at)
        is_part = token and token.value in VERSE_PARTS and not token.is_spaced
        return at + 1 if is_part or self._is_word(at, VERSE_ENDINGS) else at

    def _verse_at(self, at: int, chapter: Number, *, has_ending: bool) -> tuple[int, str]:
        """The index of the verse that belongs to a chapter, and the sign before it; "" without one."""
        token, following = self._at(at), self._at(at + 1)
        if token is None or token.is_on_new_line:
            return at, ""
        if token.value == ":" and following and following.kind == "number":
            return at + 1, ":"
        if token.value == "." and self._is_dot_before_verse(following, chapter):
            return at + 1, "."
        if token.value == "," and self._is_comma_before_verse(following, chapter):
            self._comma_separates = True
            return at + 1, ","
        word_at = at + (token.value == ",")
        if self._is_word(word_at, VERSE_WORDS):
            return self._skip(word_at, VERSE_WORDS), "word"
        if has_ending or self._is_space_before_verse(at, chapter):
            return at, "space"
        return at, ""

    def _is_dot_before_verse(self, verse: Token | None, chapter: Number) -> bool:
        if verse is None or verse.kind != "number" or self._comma_separates:
            return False
        return not verse.is_spaced or chapter.kind == "roman" or self._in_field

    def _is_comma_before_verse(self, verse: Token | None, chapter: Number) -> bool:
        """ "Joh 3,16" is a verse, and "Ps 23, 24" are two chapters."""
        if verse is None or verse.kind != "number" or chapter.kind != "digits":
            return False
        if verse_number(self._book, chapter.value, verse.number) is None:
            return False
        is_written_so = not self._languages - COMMA_LANGUAGES
        return not verse.is_spaced or is_written_so

    def _is_space_before_verse(self, at: int, chapter: Number) -> bool:
        """ "1 Cor xiii 4", "John three sixteen", and in a field "John 3 16"."""
        if self._starts_other_book(at):
            return False
        verse = self._number(at)
        if verse is None:
            return False
        if chapter.kind == "digits":
            return verse.kind == "digits" and not self._is_counted(verse.end)
        return verse.kind == chapter.kind or (chapter.kind == "roman" and verse.kind == "digits")

    def _is_counted(self, at: int) -> bool:
        """Whether a word follows, such as that for the things which a number counts."""
        following = self._at(at)
        if following is None or following.kind != "word" or not following.is_spaced:
            return False
        return following.value not in CONNECTING_WORDS

    # --- Signs between items ----------------------------------------------------------------

    def _ends_word(self, at: int) -> bool:
        """Whether no number follows, as it does in "Ps 1 f 2"."""
        following = self._at(at + 1)
        return following is None or following.kind != "number"

    def _after_separator(self, at: int) -> tuple[int, str]:
        """The index after the signs and words between two items, and the sign; "" if there is none."""
        sign = ""
        token = self._at(at)
        if token and token.is_on_new_line and token.kind == "number":
            following = self._at(at + 1)
            return at, "\n" if following and following.value in (":", ".") else ""
        if token and token.value in (",", ";", "&"):
            sign, at = token.value, at + 1
        elif (
            token
            and token.value == "."
            and self._comma_separates
            and self._is_unspaced_number(at + 1)
        ):
            return at + 1, "."
        if self._is_word(at, AND_WORDS):
            sign, at = sign or "and", at + 1
        return at, sign

    def _is_unspaced_number(self, at: int) -> bool:
        token = self._at(at)
        return token is not None and token.kind == "number" and not token.is_spaced
