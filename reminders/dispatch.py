"""Messages that tell workers to send deliveries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from reminders.models import Delivery
from scribes.messaging.publishing import publish
from scribes.presentation import short_id

MAX_DELIVERIES_PER_MESSAGE = 1000
# The number of deliveries that a message's label names.
MAX_NAMED = 3


def database_now() -> datetime:
    """The database's time. Claims use it, so what is due is decided by it, too."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        (now,) = cursor.fetchone()
    return now  # type: ignore[no-any-return]


def dispatch_deliveries(deliveries: Collection[Delivery]) -> None:
    """Publish a message for these deliveries and record when, in one transaction."""
    ids = [delivery.pk for delivery in deliveries]
    with transaction.atomic():
        Delivery.objects.filter(pk__in=ids).update(dispatched_at=Now())
        publish_deliveries(ids)


def publish_deliveries(ids: Iterable[UUID]) -> None:
    """Publish on commit, in messages of up to MAX_DELIVERIES_PER_MESSAGE deliveries."""
    texts = [str(pk) for pk in ids]
    for start in range(0, len(texts), MAX_DELIVERIES_PER_MESSAGE):
        part = texts[start : start + MAX_DELIVERIES_PER_MESSAGE]
        publish("reminders.tasks.send_deliveries", part, queue="reminders", label=_label(part))


def _label(delivery_ids: Sequence[str]) -> str:
    named = ", ".join(short_id(pk) for pk in delivery_ids[:MAX_NAMED])
    more = len(delivery_ids) - MAX_NAMED
    return f"Send reminders: delivery {named}" + (f" and {more} more" if more > 0 else "")
