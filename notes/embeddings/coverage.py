"""How many of a user's notes semantic search can find, and why not the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection

from notes.embeddings.encoder import ModelUnavailable
from notes.embeddings.rollout import active_model, encoder_of, model_name
from notes.models import FIRST_PART_ORDINAL, EmbeddingModel, Note
from scribes.models import User

MAX_FAILURES_SHOWN = 10

# Each note is in exactly one state, and one statement counts them all, so the counts add up. It joins
# nothing: if PostgreSQL's statistics are outdated, it may join by comparing each row with each.
COUNTS_BY_STATE_SQL = """
WITH facts (note_id, has_text, is_current, has_failed) AS (
    SELECT id, has_text, NULL::boolean, NULL::boolean FROM notes WHERE user_id = %(user)s
    UNION ALL
    SELECT note_id, NULL, current, NULL FROM passages
    WHERE user_id = %(user)s AND model_id = %(model)s AND ordinal < %(first_part)s
    UNION ALL
    SELECT note_id, NULL, NULL, error_class > '' FROM pending_embeddings WHERE user_id = %(user)s
), states AS (
    SELECT
        CASE
            WHEN NOT bool_or(has_text) THEN 'blank'
            WHEN bool_or(is_current) THEN 'current'
            WHEN bool_or(has_failed) THEN 'failed'
            WHEN NOT bool_or(is_current) THEN 'stale'
            ELSE 'missing'
        END AS state
    FROM facts GROUP BY note_id
)
SELECT state, count(*) FROM states GROUP BY state
"""
STATES = ("current", "stale", "missing", "failed", "blank")


def coverage(user: User) -> dict[str, Any]:
    """The number of the user's notes in each state, and the model. Blank notes are not embedded.

    This works without a model, too: `degraded` says that its files cannot be read.
    """
    model = _active_model(user)
    counts = _counts(user, model)
    total, blank = sum(counts.values()), counts.pop("blank")
    current, with_text = counts["current"], total - blank
    return counts | {
        "total_notes": total,
        "notes_with_embeddings": current,
        "notes_without_embeddings": total - current,
        "coverage_percent": round(100 * current / with_text, 1) if with_text else 100.0,
        "failures": _failures(user, model),
        "model": model_name(user),
        **_dimension(model),
    }


def _active_model(user: User) -> EmbeddingModel | None:
    """None if the user has no vectors and the default model cannot be read."""
    try:
        return active_model(user)
    except ModelUnavailable:
        return None


def _counts(user: User, model: EmbeddingModel | None) -> dict[str, int]:
    with connection.cursor() as cursor:
        model_id = model.pk if model else None
        parameters = {"user": user.pk, "model": model_id, "first_part": FIRST_PART_ORDINAL}
        cursor.execute(COUNTS_BY_STATE_SQL, parameters)
        return dict.fromkeys(STATES, 0) | dict(cursor.fetchall())


def _failures(user: User, model: EmbeddingModel | None) -> Iterable[Mapping[str, Any]]:
    failed = Note.objects.for_user(user).failed().order_by("pk")
    if model:
        failed = failed.stale(model)
    shown = failed[:MAX_FAILURES_SHOWN]
    return shown.values("pk", "pending_embedding__error_class", "pending_embedding__error")


def _dimension(model: EmbeddingModel | None) -> dict[str, Any]:
    try:
        dimension = encoder_of(model).dimension if model else None
    except ModelUnavailable:
        dimension = None
    return {"dimension": dimension, "degraded": [] if dimension else ["semantic"]}
