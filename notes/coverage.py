"""How many of a user's notes meaning can find, and why not the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection

from notes import serving
from notes.embedding import ModelUnavailable
from notes.models import EmbeddingModel, Note
from scribes.models import User

FAILURES_SHOWN = 10

# Each note is in one state, and all are looked at in one moment: so the counts add up.
STATES = """
SELECT
    CASE
        WHEN NOT has_text THEN 'blank'
        WHEN of_model.current THEN 'current'
        WHEN due.error_class > '' THEN 'failed'
        WHEN NOT of_model.current THEN 'stale'
        ELSE 'missing'
    END AS state,
    count(*)
FROM notes
LEFT JOIN (
    SELECT note_id, bool_or(current) AS current FROM passages
    WHERE user_id = %(user)s AND model_id = %(model)s GROUP BY note_id
) of_model ON of_model.note_id = notes.id
LEFT JOIN embeddings_due due ON due.note_id = notes.id
WHERE notes.user_id = %(user)s
GROUP BY state
"""
STATE_NAMES = ("current", "stale", "missing", "failed", "blank")


def coverage(user: User) -> dict[str, Any]:
    """Counts of the user's notes by state, and the model. Blank notes have nothing to embed.

    Answers without a model, too: `degraded` says so where its files cannot be read.
    """
    model = _model(user)
    counts = _counts(user, model)
    total, blank = sum(counts.values()), counts.pop("blank")
    current, with_text = counts["current"], total - blank
    return counts | {
        "total_notes": total,
        "notes_with_embeddings": current,
        "notes_without_embeddings": total - current,
        "coverage_percent": round(100 * current / with_text, 1) if with_text else 100.0,
        "failures": _failures(user, model),
        "model": serving.name_of(user),
        **_dimension(model),
    }


def _model(user: User) -> EmbeddingModel | None:
    """None, where the user has no vectors, and nothing can be read of the model to make them with."""
    try:
        return serving.of(user)
    except ModelUnavailable:
        return None


def _counts(user: User, model: EmbeddingModel | None) -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(STATES, {"user": user.pk, "model": model.pk if model else None})
        return dict.fromkeys(STATE_NAMES, 0) | dict(cursor.fetchall())


def _failures(user: User, model: EmbeddingModel | None) -> Iterable[Mapping[str, Any]]:
    failed = Note.objects.for_user(user).failed().order_by("pk")
    if model:
        failed = failed.stale(model)
    return failed.values("pk", "due__error_class", "due__error")[:FAILURES_SHOWN]


def _dimension(model: EmbeddingModel | None) -> dict[str, Any]:
    try:
        dimension = serving.encoder_of(model).dimension if model else None
    except ModelUnavailable:
        dimension = None
    return {"dimension": dimension, "degraded": [] if dimension else ["meaning"]}
