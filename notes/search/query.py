"""What the user typed -> a vector and a full-text query."""

from __future__ import annotations

import re
from typing import NamedTuple

from notes.embeddings.encoder import ModelUnavailable
from notes.embeddings.rollout import active_model, encoder_of
from notes.models import EmbeddingModel, NoteQuerySet
from notes.search.sql import fetch_rows, vector_literal
from scribes.models import User

HYBRID, SEMANTIC, KEYWORD = "hybrid", "semantic", "keyword"
MODES = (HYBRID, SEMANTIC, KEYWORD)

# Phones type curly quotes.
STRAIGHT_QUOTES = str.maketrans("“”„«»", '"' * 5)
OPERATORS = re.compile(r'"|(?:^|\s)-\w')
QUOTED_OR_EXCLUDED = re.compile(r'"[^"]*"|(?<!\S)-("[^"]*"|\w[^\s"]*)')
# The limit for a long query: for each lexeme PostgreSQL reads the words of every matching note.
MAX_LEXEMES = 32

KEYWORD_QUERY_SQL = """
WITH lexemes AS (
    SELECT lexeme FROM unnest(to_tsvector('english', %(text)s))
    ORDER BY positions[1] LIMIT %(limit)s
)
SELECT websearch_to_tsquery('english', %(text)s)::text,
    replace(plainto_tsquery('english', %(text)s)::text, ' & ', ' | '),
    array(SELECT array_to_tsvector(ARRAY[lexeme])::text FROM lexemes),
    array(SELECT lexeme FROM lexemes)
"""


class KeywordQuery(NamedTuple):
    """A query for PostgreSQL's full-text search."""

    tsquery: str
    """Determines which notes match."""
    lexemes: list[str]
    """Determine the rank of a match. Each is a tsquery."""
    stems: list[str]
    """The lexemes without quotes."""


class Query(NamedTuple):
    """A parsed search. Without a vector it is a keyword search, without keywords a semantic one."""

    user: User
    vector: str | None = None
    """As a literal of pgvector."""
    model: EmbeddingModel | None = None
    """The model of the vector."""
    keywords: KeywordQuery | None = None
    candidates: NoteQuerySet | None = None
    """Search these notes only; None: all notes of the user."""
    excluded: str = ""
    """Terms excluded from the semantic search, as a tsquery; the keyword query carries its own."""
    exclude_note_id: int = 0


def parse_query(
    user: User, text: str, mode: str, candidates: NoteQuerySet | None
) -> tuple[Query, list[str]]:
    """The vector and keywords of a query, as the mode requires, and the modes that are unavailable.

    A semantic search falls back to keywords if there is no vector: if the model is unavailable, or
    the text has nothing but exclusions.
    """
    query, degraded = Query(user, candidates=candidates), []
    text = text.translate(STRAIGHT_QUOTES)
    included, excluded = _split_exclusions(text)
    if mode != KEYWORD and included:
        try:
            query = _with_vector(query, included, excluded)
        except ModelUnavailable:
            degraded = [SEMANTIC]
    if mode != SEMANTIC or query.vector is None:
        query = query._replace(keywords=_keyword_query(text))
    return query, degraded


def _with_vector(query: Query, included: str, excluded: list[str]) -> Query:
    """Raises ModelUnavailable."""
    model = active_model(query.user)
    vector = encoder_of(model).embed([included])[0]
    return query._replace(
        vector=vector_literal(vector), model=model, excluded=_any_of_tsquery(excluded)
    )


def _split_exclusions(text: str) -> tuple[str, list[str]]:
    """The query without exclusions, and the words and "phrases" that have a minus."""
    excluded = [part[1] for part in QUOTED_OR_EXCLUDED.finditer(text) if part[1]]
    included = QUOTED_OR_EXCLUDED.sub(lambda part: "" if part[1] else part[0], text)
    return included.strip(), excluded


def _any_of_tsquery(terms: list[str]) -> str:
    """A tsquery that matches any of these words and "phrases"; empty for stop words only."""
    if not terms:
        return ""
    statement = "SELECT websearch_to_tsquery('english', %s)::text"
    return str(fetch_rows(statement, [" or ".join(terms)])[0][0])


def _keyword_query(text: str) -> KeywordQuery | None:
    """None for stop words only.

    A note matches if it has any of the words, so that whole questions find something. With "quotes"
    or -minus, the note must match exactly as the query says.
    """
    parameters = {"text": text, "limit": MAX_LEXEMES}
    exact, any_word, lexemes, stems = fetch_rows(KEYWORD_QUERY_SQL, parameters)[0]
    tsquery = exact if OPERATORS.search(text) else any_word
    return KeywordQuery(tsquery, lexemes, stems) if tsquery else None
