from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, Min
from django.db.models.functions import Now
from prometheus_client import Metric

from reminders.models import Delivery, Reminder
from scribes.monitoring.metrics import gauge, register


@register()
def lateness() -> Iterator[Metric]:
    """How late the reminders and deliveries that still wait are. Up to 900 s for a sweep is normal."""
    due = Reminder.objects.pending().filter(scheduled_at__lte=Now())
    ready = Delivery.objects.ready()
    rows = (
        (["sweep"], _seconds(due.aggregate(wait=Now() - Min("scheduled_at"))["wait"])),
        (["sending"], _seconds(ready.aggregate(wait=Now() - Min("next_attempt_at"))["wait"])),
    )
    help = "Longest wait of a due reminder for a sweep, and of a ready delivery to be sent."
    yield gauge("scribes_reminder_lateness_seconds", help, ["waits_for"], rows)


@register()
def deliveries() -> Iterator[Metric]:
    counts = Delivery.objects.order_by().values_list("channel", "status").annotate(Count("pk"))
    rows = (((channel, status), number) for channel, status, number in counts)
    help = "Number of deliveries by channel and status."
    yield gauge("scribes_deliveries", help, ["channel", "status"], rows)


def _seconds(time: timedelta | None) -> float:
    return time.total_seconds() if time else 0.0
