"""What each user chooses for all their reminders: quiet hours, a digest, a webhook, and a feed."""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Callable
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import models

from reminders.recurrence import to_utc
from scribes.models import User


def new_feed_secret() -> str:
    return secrets.token_urlsafe(32)


def new_webhook_secret() -> str:
    """A secret as Standard Webhooks writes it: whsec_ and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


NEW_SECRETS: dict[str, Callable[[], str]] = {
    "webhook": new_webhook_secret,
    "feed": new_feed_secret,
}


class ReminderPreferences(models.Model):
    """One user's preferences for reminders. Times of day are in the user's own time zone.

    `for_user` is the only place that creates a row, since a row needs secrets of its own.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="reminder_preferences"
    )
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_until = models.TimeField(null=True, blank=True)
    digest_at = models.TimeField(null=True, blank=True)
    webhook_url = models.CharField(max_length=2000, blank=True, default="")
    webhook_secret = models.CharField(max_length=100)
    feed_secret = models.CharField(max_length=64, unique=True)

    class Meta:
        db_table = "reminder_preferences"
        verbose_name_plural = "reminder preferences"

    def __str__(self) -> str:
        return f"preferences of {self.user_id}"

    @classmethod
    def for_user(cls, user: User) -> ReminderPreferences:
        """The user's preferences, which are created at the first call."""
        new_secrets = {f"{name}_secret": new_secret() for name, new_secret in NEW_SECRETS.items()}
        return cls.objects.get_or_create(user=user, defaults=new_secrets)[0]

    def rotate_secret(self, name: str) -> None:
        """Replace the secret of the webhook or of the feed. The old one stops working at once."""
        field = f"{name}_secret"
        setattr(self, field, NEW_SECRETS[name]())
        self.save(update_fields=[field])

    def after_quiet_hours(self, now: datetime, zone: ZoneInfo) -> datetime:
        """`now`, or the end of the quiet hours if `now` is within them."""
        if self.quiet_from is None or self.quiet_until is None:
            return now
        today = now.astimezone(zone).date()
        over_midnight = timedelta(days=self.quiet_until < self.quiet_from)
        for day in (today - timedelta(days=1), today):
            # Compare instants, not clock times: some clock times come twice a year.
            start = to_utc(datetime.combine(day, self.quiet_from), zone)
            end = to_utc(datetime.combine(day + over_midnight, self.quiet_until), zone)
            if start <= now < end:
                return end
        return now

    def next_digest(self, now: datetime, zone: ZoneInfo) -> tuple[uuid.UUID, datetime] | None:
        """The id of the next digest and the time it is sent; None without a daily digest."""
        if self.digest_at is None:
            return None
        sent_at = next_time_of_day(self.digest_at, now, zone)
        name = f"digest of {self.user_id} at {sent_at.isoformat()}"
        return uuid.uuid5(uuid.NAMESPACE_URL, name), sent_at


def next_time_of_day(clock: time, now: datetime, zone: ZoneInfo) -> datetime:
    """The next time after `now` that clocks in the zone show `clock`."""
    today = now.astimezone(zone).date()
    times = (to_utc(datetime.combine(today + timedelta(days=n), clock), zone) for n in range(3))
    return next(moment for moment in times if moment > now)
