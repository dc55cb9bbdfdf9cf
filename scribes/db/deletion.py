"""Deleting rows that other processes may be working on.

Django deletes children before their parents, while all other code locks parents before children.
Without a lock on the whole tree first, the two would wait for each other. The lock also keeps
others from adding children meanwhile.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)


def lock_with_children(rows: QuerySet[Any]) -> None:
    """Lock these rows in the order of their keys, then the rows that refer to them, table by table."""
    list(rows.order_by("pk").select_for_update().values_list("pk"))
    for relation in rows.model._meta.related_objects:
        related: Any = relation.related_model
        lock_with_children(related._default_manager.filter(**{f"{relation.field.name}__in": rows}))


class LockingDeleteQuerySet(QuerySet[M]):
    """Locks the rows and their children before it deletes them."""

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            lock_with_children(self)
            return super().delete()

    # As with Django's own delete(), managers do not get it: Note.objects.delete() would delete all.
    delete.queryset_only = True  # type: ignore[attr-defined]
