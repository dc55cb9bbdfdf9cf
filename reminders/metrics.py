from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, Min
from django.db.models.functions import Now
from prometheus_client import Metric

from reminders.models import Delivery, Reminder
from scribes.metrics import gauge, register


@register()
def lateness() -> Iterator[Metric]:
    """Sweeps come every 15 minutes, so up to 900 s of the first are as they should be."""
    due = Reminder.objects.pending().filter(scheduled_at__lte=Now())
    unsent = Delivery.objects.ready()
    rows = (
        (["sweep"], _seconds(due.aggregate(late=Now() - Min("scheduled_at"))["late"])),
        (["sending"], _seconds(unsent.aggregate(late=Now() - Min("next_attempt_at"))["late"])),
    )
    help = "How long the longest has been waiting past its time, for a sweep or to be sent."
    yield gauge("scribes_reminder_lateness_seconds", help, ["waits_for"], rows)


@register()
def deliveries() -> Iterator[Metric]:
    counts = Delivery.objects.order_by().values_list("channel", "status").annotate(Count("pk"))
    rows = (((channel, status), number) for channel, status, number in counts)
    yield gauge("scribes_deliveries", "By channel and result.", ["channel", "result"], rows)


def _seconds(time: timedelta | None) -> float:
    return time.total_seconds() if time else 0.0
