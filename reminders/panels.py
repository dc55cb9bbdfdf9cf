"""What the admin's front page says of reminders."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Min
from django.db.models.functions import Now

from reminders.models import Delivery, Reminder
from scribes.dashboard import Figure, Panel, register
from scribes.display import spoken

# Sweeps come every quarter of an hour.
LATE_SWEEP = timedelta(minutes=16)
LATE_SENDING = timedelta(minutes=5)


@register("Reminders")
def lateness() -> Panel:
    pending = Reminder.objects.pending()
    due = pending.filter(scheduled_at__lte=Now()).aggregate(
        n=Count("pk"), longest=Now() - Min("scheduled_at")
    )
    unsent = Delivery.objects.ready().aggregate(
        n=Count("pk"), longest=Now() - Min("next_attempt_at")
    )
    later = pending.filter(scheduled_at__gt=Now()).aggregate(wait=Min("scheduled_at") - Now())
    return Panel(
        "",
        [
            Figure("due, wait for the sweep", due["n"]),
            Figure("the longest", spoken(due["longest"]), _is_over(due["longest"], LATE_SWEEP)),
            Figure("swept, wait to be sent", unsent["n"]),
            Figure(
                "the longest", spoken(unsent["longest"]), _is_over(unsent["longest"], LATE_SENDING)
            ),
            Figure("the next is due in", spoken(later["wait"])),
        ],
        note="The sweep comes every 15 minutes.",
    )


def _is_over(late: timedelta | None, limit: timedelta) -> bool:
    return late is not None and late > limit
