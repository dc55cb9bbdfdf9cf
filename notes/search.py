"""Notes found by meaning: exact, within one user's passages."""

from __future__ import annotations

from typing import Any

from django.db.models import F, Window
from django.db.models.functions import RowNumber
from pgvector.django import CosineDistance

from notes import embedding
from notes.models import Note, Passage
from scribes.models import User


def by_meaning(
    user: User, query: str, *, limit: int, offset: int, min_similarity: float
) -> list[Passage]:
    """The user's notes nearest to the query, best first: each note's best passage.

    Passages carry `similarity` (the cosine, -1 to 1) and their note. Every passage of the user is
    compared, so nothing is missed and pages fit together. Raises ModelUnavailable.
    """
    vector = embedding.embed([query])[0]
    best_first = F("similarity").desc()
    in_note = Window(
        RowNumber(), partition_by=F("note_id"), order_by=[best_first, F("ordinal").asc()]
    )
    best = (
        Passage.objects.for_user(user)
        .current(embedding.model_version())
        .annotate(similarity=1 - CosineDistance("vector", vector))
        .filter(similarity__gte=min_similarity)
        .annotate(place_in_note=in_note)
        .filter(place_in_note=1)
    )
    found = best.select_related("note").defer("vector").order_by(best_first, "note_id")
    return list(found[offset : offset + limit])


def coverage(user: User) -> dict[str, Any]:
    """How many notes have current vectors. Blank notes never do: there is nothing to embed."""
    notes = Note.objects.for_user(user)
    total = notes.count()
    embedded = notes.embedded(embedding.model_version()).count()
    return {
        "total_notes": total,
        "notes_with_embeddings": embedded,
        "notes_without_embeddings": total - embedded,
        "coverage_percent": round(100 * embedded / total, 1) if total else 100.0,
        "model": embedding.model_name(),
        "dimension": embedding.dimension(),
    }
