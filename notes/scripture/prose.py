"""What counts as a reference in the text of a note, where "Mark 5 boxes" and "9:30 EST" are none."""

from __future__ import annotations

from collections.abc import Sequence

from notes.scripture.book_finder import Found
from notes.scripture.locators import CONNECTING_WORDS, Item
from notes.scripture.tokens import Token, words

# Names of books that are also words, units or people.
WORDS = words(
    "mark marks job jobs act acts num number numbers judge judges king kings dan daniel joel amos am james"
    " jas john luke ruth est esther song songs is isa rev re titus tit jude jud jonah jon micah mic joshua"
    " jos ezra jeremiah jer matthew mat mar peter mal hag phil philemon tim col gal lev sam hos lam hab so"
    " he ho es ex an na da la mi ne ec ac ap hi os ab ag mc pm ps pr ro ru ge le de dt zac nah tob ser"
    " proverbs prov chronicles leviticus nehemiah samuel pss ser sal eze ezr nu jl jb js so sg wis sir ri"
    " ob obad ti th co ki ch pe jo jn as ef ga ko hb pet thes thess heb hebr tt st"
)
CONTEXT_WORDS = words("see read cf compare chapter vgl siehe voir")
TIME_WORDS = words("am pm a p uhr h hrs hours o oclock")
# These words begin sentences, too: "At 3:16 he left."
NEVER = words("at to on in no an as do la le el de am al")
# Short names that people type in lower case.
LOWER_CASE = words("rom gen exo deu mt mk lk jn ps psa eph php heb isa matt")
VOWELS = set("aeiou")
MIN_LOWER_CASE_LETTERS = 4


def is_reference(tokens: Sequence[Token], found: Found, item: Item) -> bool:
    """Whether a text means the book: a name that is also a word needs a verse, or a clear context."""
    if _is_time(tokens, item.end) or _is_glued(tokens, found.first):
        return False
    if item.first.book != item.last.book:
        return _is_capital(tokens, found)
    if item.kind == "spoken":
        is_clear = item.sign != "" or not _is_word(tokens, found)
        return found.name.is_full and _is_capital(tokens, found) and is_clear
    if item.sign == "" or (item.sign, item.kind) == ("space", "digits"):
        return _is_chapter(tokens, found, item)
    return _is_verse(tokens, found, item)


def _is_verse(tokens: Sequence[Token], found: Found, item: Item) -> bool:
    letters = _letters(tokens, found)
    if item.sign in (".", ","):
        following = tokens[item.end] if item.end < len(tokens) else None
        if following and following.value == item.sign and _is_number(tokens, item.end + 1):
            return False  # a version, or a large number
        is_short_word = letters in WORDS and len(letters) < MIN_LOWER_CASE_LETTERS
        return _is_capital(tokens, found) and not is_short_word
    if _is_shouted(tokens, found):
        return False
    if _is_capital(tokens, found):
        return letters not in NEVER
    is_long = len(letters) >= MIN_LOWER_CASE_LETTERS
    return is_long or letters in LOWER_CASE or tokens[found.first].kind == "number"


def _is_chapter(tokens: Sequence[Token], found: Found, item: Item) -> bool:
    if not _is_capital(tokens, found):
        return False
    if item.kind == "roman" and not (found.name.is_full and _text(tokens, item).islower()):
        return False
    if not _is_word(tokens, found):
        return True
    return _has_context(tokens, found) and not _is_counted(tokens, item.end)


def _has_context(tokens: Sequence[Token], found: Found) -> bool:
    if found.first == 0 or tokens[found.first].is_on_new_line:
        return True
    before = tokens[found.first - 1]
    return before.value in ("(", ";") or before.value in CONTEXT_WORDS


def _is_counted(tokens: Sequence[Token], end: int) -> bool:
    """Whether the number is followed by a word, such as that for the things which it counts."""
    if end == len(tokens) or tokens[end].kind != "word" or tokens[end].is_on_new_line:
        return False
    return tokens[end].value not in CONNECTING_WORDS


def _is_glued(tokens: Sequence[Token], first: int) -> bool:
    """Whether it is the end of a word or number, as in X3J11."""
    before = tokens[first - 1] if first else None
    return before is not None and before.kind != "sign" and not tokens[first].is_spaced


def _is_time(tokens: Sequence[Token], end: int) -> bool:
    return end < len(tokens) and tokens[end].value in TIME_WORDS and tokens[end].text.islower()


def _is_word(tokens: Sequence[Token], found: Found) -> bool:
    """Whether the name may be something else. Numbered books are clear."""
    if tokens[found.first].kind == "number":
        return False
    letters = _letters(tokens, found)
    return (
        letters in WORDS or len(letters) == 1 or (len(letters) == 2 and bool(VOWELS & set(letters)))
    )


def _is_capital(tokens: Sequence[Token], found: Found) -> bool:
    """Whether a word of the name has a capital, or its script has none."""
    names = [token.text for token in tokens[found.first : found.end] if token.kind == "word"]
    return any(word[0].isupper() or word[0].lower() == word[0].upper() for word in names)


def _is_shouted(tokens: Sequence[Token], found: Found) -> bool:
    """Whether it is a word in capitals, such as EST."""
    text = tokens[found.first].text
    return text.isupper() and len(text) > 1 and _is_word(tokens, found)


def _letters(tokens: Sequence[Token], found: Found) -> str:
    return "".join(token.value for token in tokens[found.first : found.end] if token.kind == "word")


def _is_number(tokens: Sequence[Token], at: int) -> bool:
    return at < len(tokens) and tokens[at].kind == "number"


def _text(tokens: Sequence[Token], item: Item) -> str:
    return "".join(token.text for token in tokens[item.begin : item.end])
