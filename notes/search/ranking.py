"""Searches a user's notes by meaning, by keywords, or both. The search is exact.

A semantic search compares the query with every passage of the user, so it misses nothing. A keyword
search uses PostgreSQL's full-text search. A hybrid search fuses both rankings by reciprocal rank
(Cormack, Clarke and Büttcher, SIGIR 2009): the score of a note is the sum of 1 / (60 + place) over
the rankings that contain it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from notes.embeddings.encoder import ModelUnavailable
from notes.embeddings.rollout import active_model
from notes.models import EmbeddingModel, Note, NoteQuerySet
from notes.search.hits import Hit, RankedNote, hits
from notes.search.query import KEYWORD, SEMANTIC, Query, parse_query
from notes.search.sql import fetch_rows
from scribes.models import User

# The value that the paper and others after it found best.
RRF_K = 60


class SearchPage(NamedTuple):
    hits: list[Hit]
    degraded: list[str]
    """The modes that were asked for and are unavailable."""


def search(
    user: User,
    text: str,
    *,
    mode: str,
    candidates: NoteQuerySet | None,
    limit: int,
    offset: int,
    min_similarity: float,
) -> SearchPage:
    """One page of the user's notes that match, best first; only those in `candidates` if given.

    The order is total, so pages neither overlap nor leave gaps. Without a model, this is a keyword
    search.
    """
    query, degraded = parse_query(user, text, mode, candidates)
    ranked = _rank(query, limit, offset, min_similarity)
    return SearchPage(hits(ranked, query), degraded)


def similar(note: Note, *, limit: int, offset: int, min_similarity: float) -> SearchPage:
    """One page of the user's other notes, those closest to the mean of this note's vectors first."""
    try:
        model = active_model(note.user)
    except ModelUnavailable:
        return SearchPage([], [SEMANTIC])
    mean = _mean_vector(note, model)
    if mean is None:
        return SearchPage([], [SEMANTIC])
    query = Query(note.user, mean, model, exclude_note_id=note.pk)
    return SearchPage(hits(_rank(query, limit, offset, min_similarity), query), [])


def _mean_vector(note: Note, model: EmbeddingModel) -> str | None:
    """None for a note without vectors."""
    statement = (
        "SELECT l2_normalize(avg(vector))::text FROM passages"
        " WHERE note_id = %s AND model_id = %s AND current"
    )
    mean: str | None = fetch_rows(statement, [note.pk, model.pk])[0][0]
    return mean


# --- Ranking --------------------------------------------------------------------------------


# OFFSET 0 keeps the vectors out of the grouping. With them in each row, PostgreSQL expects to exceed
# its work_mem for a user with 10,000 passages, and sorts them on disk.
SEMANTIC_SQL = """
    SELECT note_id, -min(distance) AS similarity
    FROM (
        SELECT note_id, vector <#> %(vector)s::halfvec AS distance
        FROM passages
        WHERE user_id = %(user)s AND model_id = %(model)s AND current {conditions}
        OFFSET 0
    ) compared
    WHERE distance <= -%(min_similarity)s
    GROUP BY note_id
"""
CANDIDATE_PASSAGES_SQL = "AND note_id = ANY(%(candidates)s)"
EXCLUDE_NOTE_SQL = "AND note_id <> %(exclude_note_id)s"
EXCLUDE_TERMS_SQL = """
    AND note_id NOT IN (
        SELECT id FROM notes WHERE words @@ (%(owner)s::tsquery && %(excluded)s::tsquery)
    )
"""
# The weight of a word is its inverse document frequency, squared as in tf-idf (once for the word in
# the query, once for the word in the note): rare words say more. ts_rank counts how often and where
# a note has the word. With the option 1 it also divides by the logarithm of the note's length, for
# which it reads all words of the note. Once is enough, with the lexeme that every note has once.
# ts_delete deletes nothing: it makes PostgreSQL unpack the words of a note once, and OFFSET 0 keeps it
# in place. float8, because the logarithm of a numeric takes longer than everything else. The total is
# a scalar sub-query: in a join, PostgreSQL may count all notes again for each match.
KEYWORD_SQL = """
    WITH total AS MATERIALIZED (
        SELECT count(*)::float8 AS notes FROM notes WHERE user_id = %(user)s {conditions}
    )
    SELECT note_id, by_length * ({rank}) AS rank
    FROM (
        SELECT note_id, ts_rank(words, %(owner)s::tsquery, 1) AS by_length, {ranks}
        FROM (
            SELECT id AS note_id, ts_delete(words, '') AS words
            FROM notes
            WHERE words @@ (%(owner)s::tsquery && %(tsquery)s::tsquery) {conditions}
            OFFSET 0
        ) matching OFFSET 0
    ) ranked
"""
CANDIDATE_NOTES_SQL = "AND id = ANY(%(candidates)s)"
RANK_OF_LEXEME_SQL = "ts_rank(words, (%(lexemes)s::text[])[{n}]::tsquery) AS rank_{n}"
WEIGHTED_RANK_SQL = (
    "rank_{n} * ln(1 + (SELECT notes FROM total)"
    " / (0.5 + count(*) FILTER (WHERE rank_{n} > 0) OVER ())) ^ 2"
)
NO_KEYWORDS_SQL = "SELECT 0::bigint AS note_id, 0.0 AS rank WHERE false"

# With a single ranking, places are computed for the notes of the page only. This saves a fifth of the
# time that HYBRID_RANKING_SQL takes.
SINGLE_RANKING_SQL = """
SELECT
    note_id,
    1 / (%(k)s::float8 + %(offset)s + row_number() OVER best_first),
    {similarity},
    {matched_by}
FROM (
    SELECT * FROM ({matches}) matches
    ORDER BY {order} DESC, note_id
    LIMIT %(limit)s OFFSET %(offset)s
) page
WINDOW best_first AS (ORDER BY {order} DESC, note_id)
ORDER BY {order} DESC, note_id
"""
HYBRID_RANKING_SQL = """
WITH semantic AS (
    SELECT note_id, similarity, row_number() OVER (ORDER BY similarity DESC, note_id) AS place
    FROM ({semantic}) matches
),
keyword AS (
    SELECT note_id, row_number() OVER (ORDER BY rank DESC, note_id) AS place
    FROM ({keyword}) matches
)
SELECT
    note_id,
    coalesce(1 / (%(k)s::float8 + s.place), 0) + coalesce(1 / (%(k)s::float8 + k.place), 0) AS score,
    s.similarity,
    CASE WHEN s IS NULL THEN 'keyword' WHEN k IS NULL THEN 'semantic' ELSE 'both' END
FROM semantic s FULL JOIN keyword k USING (note_id)
ORDER BY score DESC, note_id
LIMIT %(limit)s OFFSET %(offset)s
"""


def ranking_statement(
    query: Query, limit: int, offset: int, min_similarity: float
) -> tuple[str, dict[str, Any]]:
    """The SQL that ranks the matching notes, and its parameters."""
    candidates = query.candidates
    return _ranking_sql(query), {
        "user": query.user.pk,
        "vector": query.vector,
        "model": query.model and query.model.pk,
        "tsquery": query.keywords and query.keywords.tsquery,
        "lexemes": query.keywords and query.keywords.lexemes,
        # The lexeme that the first migration adds to the words of all notes of a user.
        "owner": f"'user {query.user.pk}'",
        "candidates": None if candidates is None else list(candidates.values_list("pk", flat=True)),
        "excluded": query.excluded,
        "exclude_note_id": query.exclude_note_id,
        "min_similarity": min_similarity,
        "k": RRF_K,
        "limit": limit,
        "offset": offset,
    }


def _ranking_sql(query: Query) -> str:
    semantic, keyword = _semantic_sql(query), _keyword_sql(query)
    if query.vector is None:
        return SINGLE_RANKING_SQL.format(
            matches=keyword, order="rank", similarity="NULL", matched_by=f"'{KEYWORD}'"
        )
    if query.keywords is None:
        return SINGLE_RANKING_SQL.format(
            matches=semantic,
            order="similarity",
            similarity="similarity",
            matched_by=f"'{SEMANTIC}'",
        )
    return HYBRID_RANKING_SQL.format(semantic=semantic, keyword=keyword)


def _semantic_sql(query: Query) -> str:
    conditions = {
        EXCLUDE_NOTE_SQL: bool(query.exclude_note_id),
        CANDIDATE_PASSAGES_SQL: query.candidates is not None,
        EXCLUDE_TERMS_SQL: bool(query.excluded),
    }
    needed = " ".join(condition for condition, is_needed in conditions.items() if is_needed)
    return SEMANTIC_SQL.format(conditions=needed)


def _keyword_sql(query: Query) -> str:
    if query.keywords is None:
        return NO_KEYWORDS_SQL
    numbers = range(1, len(query.keywords.lexemes) + 1)
    return KEYWORD_SQL.format(
        rank=" + ".join(WEIGHTED_RANK_SQL.format(n=n) for n in numbers),
        ranks=", ".join(RANK_OF_LEXEME_SQL.format(n=n) for n in numbers),
        conditions="" if query.candidates is None else CANDIDATE_NOTES_SQL,
    )


def _rank(query: Query, limit: int, offset: int, min_similarity: float) -> list[RankedNote]:
    rows = fetch_rows(*ranking_statement(query, limit, offset, min_similarity))
    # Rounding to half precision may make a cosine a little larger than 1.
    return [
        RankedNote(
            note_id, float(score), None if similarity is None else min(similarity, 1.0), matched_by
        )
        for note_id, score, similarity, matched_by in rows
    ]


# --- Hits -----------------------------------------------------------------------------------
