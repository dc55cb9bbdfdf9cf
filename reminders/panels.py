"""The panel about reminders on the admin's dashboard."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Min
from django.db.models.functions import Now

from reminders.models import LATE_AFTER, Delivery, Reminder
from scribes.monitoring.dashboard import Figure, Panel, register
from scribes.presentation import humanize_duration

# Sending normally starts right after the sweep.
MAX_SENDING_WAIT = timedelta(minutes=5)


@register("Reminders")
def lateness() -> Panel:
    pending = Reminder.objects.pending()
    due = pending.filter(scheduled_at__lte=Now()).aggregate(
        n=Count("pk"), wait=Now() - Min("scheduled_at")
    )
    ready = Delivery.objects.ready().aggregate(n=Count("pk"), wait=Now() - Min("next_attempt_at"))
    later = pending.filter(scheduled_at__gt=Now()).aggregate(wait=Min("scheduled_at") - Now())
    return Panel(
        "",
        [
            Figure("due, waiting for the sweep", due["n"]),
            _longest_wait(due["wait"], LATE_AFTER),
            Figure("waiting to be sent", ready["n"]),
            _longest_wait(ready["wait"], MAX_SENDING_WAIT),
            Figure("next due in", humanize_duration(later["wait"])),
        ],
        note="The sweep looks for due reminders every 15 minutes.",
    )


def _longest_wait(wait: timedelta | None, limit: timedelta) -> Figure:
    is_problem = wait is not None and wait > limit
    return Figure("longest wait", humanize_duration(wait), is_problem)
