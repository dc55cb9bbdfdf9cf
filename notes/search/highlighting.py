"""The part of a note that is shown for a match, with the query's words highlighted."""

from __future__ import annotations

import html
import re

from notes.embeddings.chunking import Span, Token, split
from notes.search.query import KeywordQuery
from notes.search.sql import fetch_rows

EXCERPT_CHARACTERS = 300
# The size of the parts of a note without passages.
WORDS_PER_PART = 80
# How much of a long note is read to find the best part.
REGION_CHARACTERS = 4000
# PostgreSQL puts these around the query's words. They are removed from the text first.
MARK, UNMARK = "\ue000", "\ue001"

HIGHLIGHT_SQL = """
SELECT ts_headline('english', text, %(tsquery)s::tsquery, %(options)s)
FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS part (text, number) ORDER BY number
"""


def highlight(texts: list[str], keywords: KeywordQuery | None) -> list[str]:
    """The texts with MARK and UNMARK around the query's words."""
    clean = [text.replace(MARK, "").replace(UNMARK, "") for text in texts]
    if not keywords:
        return clean
    options = f"HighlightAll=true, StartSel={MARK}, StopSel={UNMARK}"
    parameters = {"texts": clean, "tsquery": keywords.tsquery, "options": options}
    return [row[0] for row in fetch_rows(HIGHLIGHT_SQL, parameters)]


def excerpt(highlighted: str) -> str:
    """EXCERPT_CHARACTERS of the text as HTML, starting shortly before its first highlighted word."""
    start = max(0, highlighted.find(MARK) - EXCERPT_CHARACTERS // 4)
    part = highlighted[start : start + EXCERPT_CHARACTERS]
    # Close a mark whose end was cut off.
    part += UNMARK * (part.count(MARK) - part.count(UNMARK))
    is_cut = start + EXCERPT_CHARACTERS < len(highlighted)
    text = ("…" if start else "") + part + ("…" if is_cut else "")
    return html.escape(text).replace(MARK, "<mark>").replace(UNMARK, "</mark>")


def best_span(text: str, keywords: KeywordQuery | None) -> Span:
    """The part of a text with most of the query's words, and the first part if it has none. Words are
    found by their stem, as the start of a word."""
    stems = keywords.stems if keywords else []
    spans = split(text, WORDS_PER_PART, 0, _split_words) or [Span(0, 0)]

    def count_stems(span: Span) -> int:
        part = text[span.start : span.end].lower()
        return sum(stem in part for stem in stems)

    return max(spans, key=count_stems)


def _split_words(text: str) -> list[Token]:
    """A tokenizer for which each word is a token."""
    words = re.finditer(r"\S+", text)
    return [Token(word.start(), number) for number, word in enumerate(words)]
