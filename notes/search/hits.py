"""The notes of a result page, each with the passage that matches best.

Notes may have a megabyte of text. PostgreSQL cuts out what is shown, so that a page of results never
loads a note's content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from notes.embeddings.chunking import HEADING_MAX_CHARACTERS, heading_at
from notes.models import Note
from notes.search.highlighting import REGION_CHARACTERS, best_span, excerpt, highlight
from notes.search.query import KEYWORD, KeywordQuery, Query
from notes.search.sql import fetch_rows

# How much of a long note is searched for the query's words, if only those match: less if there are
# many words, since the time is that of their product. If all of them come later, the start of the note
# is shown.
SEARCHED_CHARACTERS = 200_000
SEARCHED_CHARACTERS_TIMES_WORDS = 2_000_000
# How far before the first of these words a heading is looked for, in a note without passages.
HEADING_DISTANCE_CHARACTERS = 10_000


class RankedNote(NamedTuple):
    note_id: int
    score: float
    similarity: float | None
    matched_by: str


class ShownPassage(NamedTuple):
    """A part of a note: content[char_start:char_end]."""

    char_start: int
    text: str
    heading: str
    """The heading of its section, or empty."""
    excerpt: str = ""
    """The text as HTML, with the query's words in <mark>."""

    @property
    def char_end(self) -> int:
        return self.char_start + len(self.text)


class Hit(NamedTuple):
    """A note that matches, and its passage that matches best."""

    note: Note
    score: float
    similarity: float | None
    """Cosine, -1 to 1; None without a semantic match."""
    matched_by: str
    """semantic, keyword or both."""
    passage: ShownPassage


# Notes with their passage that is closest to the query. All columns but `content` and `words`, which
# are large. A passage is cut if it is long: white space has no tokens, so any amount of it fits.
HITS_SQL = """
SELECT id, user_id, title, preacher, tags, scripture_refs, created_at, updated_at,
    closest.char_start, closest.heading,
    substr(
        content,
        closest.char_start + 1,
        least(closest.char_end - closest.char_start, %(length)s)
    ) AS text
FROM notes
LEFT JOIN LATERAL (
    SELECT char_start, char_end, heading FROM passages
    WHERE note_id = notes.id AND model_id = %(model)s AND current
    ORDER BY vector <#> %(vector)s::halfvec, ordinal LIMIT 1
) closest ON true
WHERE id = ANY(%(notes)s)
"""

# The region of each note that has the first of the query's words: it starts at the start of a passage,
# which has a heading, or a little before that word. In a note without passages, the last line before it
# that looks like a heading is its heading. OFFSET 0 computes each value once.
REGIONS_SQL = """
SELECT id, start, heading, substr(content, start + 1, %(length)s)
FROM (
    SELECT id, content,
        coalesce(passage.char_start, word) AS start,
        coalesce(passage.heading, (
            SELECT left(trim(line[1], E' \\t#'), %(heading_characters)s)
            FROM regexp_matches(
                right(left(content, word), %(heading_distance)s),
                '^ {0,3}#{1,6}[ \\t]+(\\S.*)$',
                'gn'
            )
                WITH ORDINALITY AS found (line, number)
            ORDER BY number DESC LIMIT 1
        ), '') AS heading
    FROM (
        SELECT id, content, greatest(0, %(before)s + (
            SELECT coalesce(min(place), 1) FROM unnest(%(stems)s::text[]) AS stem,
                LATERAL (SELECT strpos(start_of_text, stem) AS place) found
            WHERE place > 0
        )) AS word
        FROM (
            SELECT id, content, lower(left(content, %(searched)s)) AS start_of_text
            FROM notes WHERE id = ANY(%(notes)s) OFFSET 0
        ) lowered OFFSET 0
    ) located
    LEFT JOIN LATERAL (
        SELECT char_start, heading FROM passages
        WHERE note_id = located.id AND current AND char_start <= word
        ORDER BY char_start DESC LIMIT 1
    ) passage ON true
    OFFSET 0
) region
"""


def hits(ranked: Sequence[RankedNote], query: Query) -> list[Hit]:
    """The ranked notes with their best passages, in the same order. Leaves out notes that were deleted
    after they were ranked."""
    parameters = {
        "notes": [row.note_id for row in ranked],
        "model": query.model and query.model.pk,
        "vector": query.vector,
        "length": REGION_CHARACTERS,
    }
    notes = {note.pk: note for note in Note.objects.raw(HITS_SQL, parameters)}
    present = [row for row in ranked if row.note_id in notes]
    passages = _passages(present, notes, query.keywords)
    highlighted = highlight([passages[row.note_id].text for row in present], query.keywords)
    return [
        _hit(row, notes[row.note_id], passages[row.note_id]._replace(excerpt=excerpt(text)))
        for row, text in zip(present, highlighted, strict=True)
    ]


def _hit(row: RankedNote, note: Note, passage: ShownPassage) -> Hit:
    return Hit(note, row.score, row.similarity, row.matched_by, passage)


def _passages(
    ranked: Sequence[RankedNote], notes: Mapping[int, Any], keywords: KeywordQuery | None
) -> dict[int, ShownPassage]:
    """The closest passage of each note; for a keyword match, the part with the keywords."""
    closest = {
        row.note_id: ShownPassage(note.char_start, note.text, note.heading)
        for row in ranked
        if row.matched_by != KEYWORD and (note := notes[row.note_id]).char_start is not None
    }
    others = [row.note_id for row in ranked if row.note_id not in closest]
    return closest | _keyword_passages(others, keywords)


def _keyword_passages(
    note_ids: Sequence[int], keywords: KeywordQuery | None
) -> dict[int, ShownPassage]:
    """The part of each note with most of the query's words."""
    if not note_ids:
        return {}
    stems = keywords.stems if keywords else []
    affordable = SEARCHED_CHARACTERS_TIMES_WORDS // max(1, len(stems))
    parameters = {
        "notes": note_ids,
        "stems": stems,
        "searched": min(SEARCHED_CHARACTERS, affordable),
        "heading_distance": HEADING_DISTANCE_CHARACTERS,
        "before": -1 - REGION_CHARACTERS // 8,
        "length": REGION_CHARACTERS,
        "heading_characters": HEADING_MAX_CHARACTERS,
    }
    rows = fetch_rows(REGIONS_SQL, parameters)
    return {pk: _best_part(start, text, heading, keywords) for pk, start, heading, text in rows}


def _best_part(start: int, text: str, heading: str, keywords: KeywordQuery | None) -> ShownPassage:
    span = best_span(text, keywords)
    own_heading = heading_at(text, span.start) or heading
    return ShownPassage(start + span.start, text[span.start : span.end], own_heading)
