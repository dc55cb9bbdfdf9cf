"""A user's notes by meaning, by words, or both: exact, within the user's own notes.

By meaning, every passage of the user is compared with the query, so nothing is missed. By words,
PostgreSQL's full-text search ranks the notes. Both rankings are fused by reciprocal rank (Cormack,
Clarke and Büttcher, SIGIR 2009): a note's score is the sum of 1 / (60 + place) over the rankings
that have it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import connection

from notes import passages, serving
from notes.embedding import ModelUnavailable
from notes.engines import Vectors
from notes.models import EmbeddingModel, Note, NoteQuerySet
from scribes.models import User

# What the paper found best, and others since.
RRF_K = 60
EXCERPT_CHARACTERS = 300
# Of notes whose passages are not made yet.
WORDS_PER_PASSAGE = 80
REGION_CHARACTERS = 4000
# Between these a query's word stands in what PostgreSQL marks; a text that has them loses them.
MARK, UNMARK = "\ue000", "\ue001"


class Hit(NamedTuple):
    """A note that was found, and the passage that answers best."""

    note: Note
    score: float
    similarity: float | None
    """Cosine, -1 to 1; None where meaning did not find it."""
    why: str
    """meaning, words or both"""
    span: passages.Span
    excerpt: str
    """HTML: of the passage, with the query's words in <mark>."""


class Found(NamedTuple):
    hits: list[Hit]
    degraded: list[str]
    """Ways of searching that were asked for and could not be used."""


class _Ranked(NamedTuple):
    note_id: int
    score: float
    similarity: float | None
    why: str


class Words(NamedTuple):
    """A query for PostgreSQL's full-text search."""

    tsquery: str
    """Which notes match."""
    lexemes: list[str]
    """What the matching ones are ranked by, each as a tsquery of its own."""
    stems: list[str]
    """The same without quotes."""


class Query(NamedTuple):
    """What a search looks for."""

    user: User
    vector: str | None
    """As _literal writes it."""
    model: EmbeddingModel | None
    words: Words | None
    among: NoteQuerySet | None
    """Only these notes; None: all."""
    without: str = ""
    """A tsquery: meaning does not find the notes that match it. The words say so by themselves."""
    besides: int = 0
    """Not this one."""


def search(
    user: User,
    text: str,
    *,
    mode: str,
    among: NoteQuerySet | None,
    limit: int,
    offset: int,
    min_similarity: float,
) -> Found:
    """The user's notes that answer best, those in `among` only, if that is given.

    Every note that meaning or words find has a place, so pages fit together. Where the model
    cannot be loaded, words alone are searched.
    """
    query, degraded = understood(user, text, mode, among)
    ranked = _ranked(query, limit, offset, min_similarity)
    return Found(_hits(ranked, query), degraded)


def similar(note: Note, *, limit: int, offset: int, min_similarity: float) -> Found:
    """The user's other notes, the ones nearest to the mean of this note's vectors first."""
    try:
        model = serving.of(note.user)
    except ModelUnavailable:
        return Found([], ["meaning"])
    mean = _mean_vector(note, model)
    if mean is None:
        return Found([], ["meaning"])
    query = Query(note.user, mean, model, None, None, besides=note.pk)
    return Found(_hits(_ranked(query, limit, offset, min_similarity), query), [])


def understood(
    user: User, text: str, mode: str, among: NoteQuerySet | None
) -> tuple[Query, list[str]]:
    """What the text means and which words it has, as far as the mode asks for it; and what of
    that is out of order."""
    query, degraded = Query(user, None, None, None, among), []
    text = text.translate(STRAIGHT_QUOTES)
    wanted, unwanted = _parts(text)
    if mode != "words" and wanted:
        try:
            model = serving.of(user)
            vector = serving.encoder_of(model).embed([wanted])[0]
            query = query._replace(model=model, vector=_literal(vector), without=_any_of(unwanted))
        except ModelUnavailable:
            degraded = ["meaning"]
    if mode != "meaning" or query.vector is None:
        query = query._replace(words=_words(text))
    return query, degraded


def _mean_vector(note: Note, model: EmbeddingModel) -> str | None:
    statement = (
        "SELECT l2_normalize(avg(vector))::text FROM passages"
        " WHERE note_id = %s AND model_id = %s AND current"
    )
    mean: str | None = _rows(statement, [note.pk, model.pk])[0][0]
    return mean


# --- Words ----------------------------------------------------------------------------------


# Telephones write them curled.
STRAIGHT_QUOTES = str.maketrans("“”„«»", '"' * 5)
OPERATORS = re.compile(r'"|(?:^|\s)-\w')
QUOTED_OR_EXCLUDED = re.compile(r'"[^"]*"|(?<!\S)-("[^"]*"|\w[^\s"]*)')
# Of a long query. Each costs a look at every note that matches.
MAX_LEXEMES = 32

QUERY = """
WITH lexemes AS (
    SELECT lexeme FROM unnest(to_tsvector('english', %(text)s))
    ORDER BY positions[1] LIMIT %(limit)s
)
SELECT websearch_to_tsquery('english', %(text)s)::text,
    replace(plainto_tsquery('english', %(text)s)::text, ' & ', ' | '),
    array(SELECT array_to_tsvector(ARRAY[lexeme])::text FROM lexemes),
    array(SELECT lexeme FROM lexemes)
"""


def _words(text: str) -> Words | None:
    """Any of the words match, so that a question finds something, too. With "quotes" or -minus
    in it, what it says. None where there are only stop words."""
    exact, any_word, lexemes, stems = _rows(QUERY, {"text": text, "limit": MAX_LEXEMES})[0]
    tsquery = exact if OPERATORS.search(text) else any_word
    return Words(tsquery, lexemes, stems) if tsquery else None


def _parts(text: str) -> tuple[str, list[str]]:
    """What is left of a query without -minus, and the words and "phrases" that have one."""
    unwanted = [part[1] for part in QUOTED_OR_EXCLUDED.finditer(text) if part[1]]
    wanted = QUOTED_OR_EXCLUDED.sub(lambda part: "" if part[1] else part[0], text)
    return wanted.strip(), unwanted


def _any_of(parts: list[str]) -> str:
    """A tsquery that any of these words and "phrases" match; empty where all are stop words."""
    if not parts:
        return ""
    statement = "SELECT websearch_to_tsquery('english', %s)::text"
    return str(_rows(statement, [" or ".join(parts)])[0][0])


def _owner(user: User) -> str:
    """The lexeme that the notes of this user have: see migration 0002."""
    return f"'user {user.pk}'"


# --- The ranking ----------------------------------------------------------------------------


# OFFSET 0 keeps the vectors out of the grouping: with them in each row, PostgreSQL expects more than
# its work_mem for a user of 10,000 passages, and sorts them all on disk.
MEANING = """
    SELECT note_id, -min(distance) AS similarity
    FROM (
        SELECT note_id, vector <#> %(vector)s::halfvec AS distance
        FROM passages
        WHERE user_id = %(user)s AND model_id = %(model)s AND current
            {besides} {among} {without}
        OFFSET 0
    ) compared
    WHERE distance <= -%(min_similarity)s
    GROUP BY note_id
"""
BESIDES = "AND note_id <> %(besides)s"
WITHOUT = """
    AND note_id NOT IN (
        SELECT id FROM notes WHERE words @@ (%(owner)s::tsquery && %(without)s::tsquery)
    )
"""
# Inverse document frequency, squared as in tf-idf (once for the query's word, once for the note's):
# a word that few of the notes have says more. ts_rank counts how often and where a note has it.
# With 1, it also divides by the logarithm of the note's length, which takes a look at all its words:
# once is enough, with the lexeme that every note has once. ts_delete deletes nothing; it makes
# PostgreSQL unpack a note's words once, and OFFSET 0 lets it be. In float8: a decimal logarithm takes
# longer than all the rest.
WORDS = """
    SELECT note_id, by_length * ({rank}) AS rank
    FROM (
        SELECT note_id, ts_rank(words, %(owner)s::tsquery, 1) AS by_length, {ranks}
        FROM (
            SELECT id AS note_id, ts_delete(words, '') AS words
            FROM notes
            WHERE words @@ (%(owner)s::tsquery && %(tsquery)s::tsquery) {among}
            OFFSET 0
        ) matching OFFSET 0
    ) ranked,
    (SELECT count(*)::float8 AS notes FROM notes WHERE user_id = %(user)s {among}) total
"""
RANK_OF_WORD = "ts_rank(words, (%(lexemes)s::text[])[{n}]::tsquery) AS rank_{n}"
WEIGHTED = "rank_{n} * ln(1 + notes / (0.5 + count(*) FILTER (WHERE rank_{n} > 0) OVER ())) ^ 2"
NOTHING = "SELECT 0::bigint AS note_id, 0.0 AS rank WHERE false"

# One ranking needs no places to be added up, so only the notes of the page get one: a fifth less time
# than by way of both.
RANKED_BY_ONE = """
SELECT
    note_id, 1 / (%(k)s::float8 + %(offset)s + row_number() OVER best_first), {similarity}, {why}
FROM (
    SELECT * FROM ({found}) found
    ORDER BY {by} DESC, note_id
    LIMIT %(limit)s OFFSET %(offset)s
) page
WINDOW best_first AS (ORDER BY {by} DESC, note_id)
ORDER BY {by} DESC, note_id
"""
RANKED_BY_BOTH = """
WITH by_meaning AS (
    SELECT note_id, similarity, row_number() OVER (ORDER BY similarity DESC, note_id) AS place
    FROM ({meaning}) meaning
),
by_words AS (
    SELECT note_id, row_number() OVER (ORDER BY rank DESC, note_id) AS place FROM ({words}) words
)
SELECT
    note_id,
    coalesce(1 / (%(k)s::float8 + m.place), 0) + coalesce(1 / (%(k)s::float8 + w.place), 0) AS score,
    m.similarity,
    CASE WHEN m IS NULL THEN 'words' WHEN w IS NULL THEN 'meaning' ELSE 'both' END
FROM by_meaning m FULL JOIN by_words w USING (note_id)
ORDER BY score DESC, note_id
LIMIT %(limit)s OFFSET %(offset)s
"""


def _ranked(query: Query, limit: int, offset: int, min_similarity: float) -> list[_Ranked]:
    rows = _rows(*ranking(query, limit, offset, min_similarity))
    # Half precision may make a cosine a little more than 1.
    return [
        _Ranked(note, float(score), None if similarity is None else min(similarity, 1.0), why)
        for note, score, similarity, why in rows
    ]


def ranking(
    query: Query, limit: int, offset: int, min_similarity: float
) -> tuple[str, dict[str, Any]]:
    """The statement that finds the notes, and its parameters."""
    among = None if query.among is None else list(query.among.values_list("pk", flat=True))
    return _ranking_sql(query, among is not None), {
        "user": query.user.pk,
        "vector": query.vector,
        "model": query.model and query.model.pk,
        "tsquery": query.words and query.words.tsquery,
        "lexemes": query.words and query.words.lexemes,
        "owner": _owner(query.user),
        "among": among,
        "without": query.without,
        "besides": query.besides,
        "min_similarity": min_similarity,
        "k": RRF_K,
        "limit": limit,
        "offset": offset,
    }


def _ranking_sql(query: Query, narrowed: bool) -> str:
    meaning = MEANING.format(
        besides=BESIDES if query.besides else "",
        among="AND note_id = ANY(%(among)s)" if narrowed else "",
        without=WITHOUT if query.without else "",
    )
    words = _words_sql(query.words, "AND id = ANY(%(among)s)" if narrowed else "")
    if query.vector is None:
        return RANKED_BY_ONE.format(found=words, by="rank", similarity="NULL", why="'words'")
    if query.words is None:
        return RANKED_BY_ONE.format(
            found=meaning, by="similarity", similarity="similarity", why="'meaning'"
        )
    return RANKED_BY_BOTH.format(meaning=meaning, words=words)


def _words_sql(words: Words | None, among: str) -> str:
    if words is None:
        return NOTHING
    numbers = range(1, len(words.lexemes) + 1)
    return WORDS.format(
        rank=" + ".join(WEIGHTED.format(n=n) for n in numbers),
        ranks=", ".join(RANK_OF_WORD.format(n=n) for n in numbers),
        among=among,
    )


def _literal(vector: Vectors) -> str:
    """pgvector's text form."""
    numbers = ",".join(["%.6g"] * len(vector)) % tuple(vector.tolist())
    return f"[{numbers}]"


def _rows(statement: str, parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


# --- What is shown --------------------------------------------------------------------------


# Notes, with their passages that are nearest to the query. All columns but the words, which are large.
SHOWN = """
SELECT id, user_id, title, content, preacher, tags, scripture_refs, created_at, updated_at,
    nearest.char_start, nearest.char_end
FROM notes
LEFT JOIN LATERAL (
    SELECT char_start, char_end FROM passages
    WHERE note_id = notes.id AND model_id = %(model)s AND current
    ORDER BY vector <#> %(vector)s::halfvec, ordinal LIMIT 1
) nearest ON true
WHERE id = ANY(%(notes)s)
"""


def _hits(ranked: Sequence[_Ranked], query: Query) -> list[Hit]:
    """A note that was deleted since it was ranked is left out."""
    parameters = {
        "notes": [row.note_id for row in ranked],
        "model": query.model and query.model.pk,
        "vector": query.vector,
    }
    notes = {note.pk: note for note in Note.objects.raw(SHOWN, parameters)}
    found = [(row, notes[row.note_id]) for row in ranked if row.note_id in notes]
    spans = [_span(row, note, query.words) for row, note in found]
    texts = [
        note.content[start:end] for (_, note), (start, end, _) in zip(found, spans, strict=True)
    ]
    marked = _marked(texts, query.words)
    return [
        Hit(note, row.score, row.similarity, row.why, span, excerpt(text))
        for (row, note), span, text in zip(found, spans, marked, strict=True)
    ]


def _span(row: _Ranked, note: Any, words: Words | None) -> passages.Span:
    """The nearest passage; where meaning did not find the note, the part with the words."""
    if row.why == "words" or note.char_start is None:
        return _span_with_words(note.content, words)
    return passages.Span(note.char_start, note.char_end)


def _span_with_words(content: str, words: Words | None) -> passages.Span:
    """The part that has most of the query's words, near the first of them; the beginning, where
    only the note's title or tags have any. Words are looked for by their stems, as they begin."""
    lower = content.lower()
    stems = words.stems if words else []
    places = [place for place in map(lower.find, stems) if place >= 0]
    start = max(0, min(places, default=0) - REGION_CHARACTERS // 8)
    region = content[start : start + REGION_CHARACTERS]
    spans = passages.split(region, WORDS_PER_PASSAGE, 0, _tokenize_words) or [passages.Span(0, 0)]

    def stems_in(span: passages.Span) -> int:
        text = region[span.start : span.end].lower()
        return sum(stem in text for stem in stems)

    best = max(spans, key=stems_in)
    return passages.Span(start + best.start, start + best.end)


def _tokenize_words(text: str) -> list[passages.Token]:
    found = re.finditer(r"\S+", text)
    return [passages.Token(word.start(), number) for number, word in enumerate(found)]


MARKED = """
SELECT ts_headline('english', text, %(words)s::tsquery, %(options)s)
FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS part (text, number) ORDER BY number
"""


def _marked(texts: list[str], words: Words | None) -> list[str]:
    clean = [text.replace(MARK, "").replace(UNMARK, "") for text in texts]
    if not words:
        return clean
    options = f"HighlightAll=true, StartSel={MARK}, StopSel={UNMARK}"
    return [
        row[0]
        for row in _rows(MARKED, {"texts": clean, "words": words.tsquery, "options": options})
    ]


def excerpt(marked: str) -> str:
    """HTML: EXCERPT_CHARACTERS of the text, from shortly before its first mark."""
    start = max(0, marked.find(MARK) - EXCERPT_CHARACTERS // 4)
    part = marked[start : start + EXCERPT_CHARACTERS]
    # A mark that the cut took the end of.
    part += UNMARK * (part.count(MARK) - part.count(UNMARK))
    cut = ("…" if start else "") + part + ("…" if start + EXCERPT_CHARACTERS < len(marked) else "")
    return html.escape(cut).replace(MARK, "<mark>").replace(UNMARK, "</mark>")
