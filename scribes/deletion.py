"""Deleting what others are working on.

Django deletes from the bottom, and whoever works on rows locks from the top: without a lock on all
of it beforehand, each would wait for the other. Then nothing can be added to it meanwhile, either.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)


def lock_tree(rows: QuerySet[Any]) -> None:
    """Lock these rows in the order of their keys, and then, table by table, what belongs to them."""
    list(rows.order_by("pk").select_for_update().values_list("pk"))
    for relation in rows.model._meta.related_objects:
        related: Any = relation.related_model
        lock_tree(related._default_manager.filter(**{f"{relation.field.name}__in": rows}))


class TreeQuerySet(QuerySet[M]):
    """Rows that are deleted with all that belongs to them, locked from the top."""

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            lock_tree(self)
            return super().delete()

    # Not of a manager, as with Django's own: Note.objects.delete() would delete all.
    delete.queryset_only = True  # type: ignore[attr-defined]
