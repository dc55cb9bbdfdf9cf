"""The rows of reminders and of what is sent for them. They are the truth; a message is a hint.

Every transition is one UPDATE that names the state it starts from. Where it changes no row,
somebody else was first, and the caller stops quietly. Leases go by the database's clock.

Whoever locks both, locks the reminder before its deliveries.
"""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When
from django.db.models.functions import Now
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from jobs.models import storable
from notes.models import Note
from reminders.recurrence import MAX_RULE_CHARACTERS, Recurrence, RuleError, to_utc
from scribes import logs
from scribes.deletion import TreeQuerySet, lock_tree
from scribes.models import User

# A sweep comes every 15 minutes; what it finds older than this was kept back by something.
LATE_AFTER = timedelta(minutes=16)
# In one mail; more of them go out in several.
DIGEST_MAX_REMINDERS = 100


class Channel(models.TextChoices):
    EMAIL = "email", "e-mail"
    WEBHOOK = "webhook"
    IN_APP = "in_app", "in-app"


# What reading a stored zone may raise (a name that is no path is a ValueError), and a stored rule.
UNKNOWN_ZONE = (ZoneInfoNotFoundError, ValueError, OSError)
UNREADABLE = (RuleError, *UNKNOWN_ZONE)


def zone_or_utc(name: str) -> ZoneInfo:
    """For showing a time: better in UTC than not at all."""
    try:
        return ZoneInfo(name)
    except UNKNOWN_ZONE:
        return ZoneInfo("UTC")


class ReminderQuerySet(TreeQuerySet["Reminder"]):
    def for_user(self, user: User) -> ReminderQuerySet:
        return self.filter(user=user)

    def pending(self) -> ReminderQuerySet:
        return self.filter(status=Reminder.Status.PENDING)

    def to_come(self) -> ReminderQuerySet:
        return self.pending().filter(scheduled_at__gt=Now())

    def due(self, now: datetime) -> ReminderQuerySet:
        return self.pending().filter(scheduled_at__lte=now)


def _email_only() -> list[str]:
    return [Channel.EMAIL]


class Reminder(models.Model):
    """Somebody wants to hear of a note at a time, once or again and again.

        pending --sweep: it fires again--> pending, at the next time
        pending --sweep: the last time---> sending --its deliveries end--> sent | failed
        pending, sending --cancel--> cancelled
        pending, sending, sent, failed --snooze--> pending

    A new time, rule or zone makes it pending as well. What is being sent while the reminder is moved
    or cancelled may still arrive, but is not tried again; what waits is withdrawn. `start_date` and
    `start_time` are where the rule starts, on the clock of `time_zone`; a snooze moves
    `scheduled_at` alone.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE: ClassVar = (Status.PENDING, Status.SENDING)

    # Where db_index is False, another index begins with the same column.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="reminders", db_index=False
    )
    note = models.ForeignKey(Note, models.CASCADE, related_name="reminders")
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    scheduled_at = models.DateTimeField(help_text="The next time, or the last one it was due.")
    start_date = models.DateField()
    start_time = models.TimeField()
    time_zone = models.CharField(max_length=64)
    rrule = models.CharField("rule", max_length=MAX_RULE_CHARACTERS, blank=True, default="")
    channels = ArrayField(models.CharField(max_length=16, choices=Channel), default=_email_only)
    message = models.TextField(max_length=2000, blank=True, default="")
    snooze_link = models.CharField(
        max_length=50,
        blank=True,
        default="",
        help_text="The link in a mail that snoozed it last: a second click on it changes nothing.",
    )
    error = models.TextField(blank=True, default="", help_text="Why its rule could not go on.")
    request_id = models.CharField(
        max_length=36, blank=True, default=logs.request_id, help_text="For finding it in the logs."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ReminderQuerySet.as_manager()

    class Meta:
        db_table = "reminders"
        ordering = ("scheduled_at", "id")
        constraints = [
            models.CheckConstraint(condition=Q(channels__len__gt=0), name="reminder_has_a_channel"),
        ]
        indexes = [
            # For the sweep: what is done with costs it nothing.
            models.Index(
                fields=["scheduled_at"], condition=Q(status="pending"), name="reminders_due"
            ),
            models.Index(fields=["user", "scheduled_at", "id"], name="reminders_of_user"),
        ]

    def __str__(self) -> str:
        return f"reminder {self.pk} at {self.scheduled_at:%Y-%m-%d %H:%M} UTC"

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            lock_tree(Reminder.objects.filter(pk=self.pk))
            return super().delete(*args, **kwargs)

    @property
    def zone(self) -> ZoneInfo:
        return zone_or_utc(self.time_zone)

    @property
    def recurrence(self) -> Recurrence | None:
        """None for a reminder that fires once. Raises an error of UNREADABLE if what is stored is
        read no longer, as when a zone is taken out of the IANA database."""
        if not self.rrule:
            return None
        start = datetime.combine(self.start_date, self.start_time)
        return Recurrence(self.rrule, start, ZoneInfo(self.time_zone))

    @property
    def is_pending(self) -> bool:
        return self.status == self.Status.PENDING

    def upcoming(self, number: int) -> list[datetime]:
        """The next times it will fire, at most so many, in its zone; empty unless it is pending."""
        if not self.is_pending:
            return []
        try:
            rule = self.recurrence
        except UNREADABLE:
            rule = None
        later = rule.upcoming(self.scheduled_at, number - 1) if rule else []
        return [self.scheduled_at.astimezone(self.zone), *later]

    def change(self, **fields: Any) -> None:
        """Write these fields. The caller has read the reminder under a lock that it still holds."""
        with transaction.atomic():
            Reminder.objects.filter(pk=self.pk).update(updated_at=Now(), **fields)
            if "scheduled_at" in fields:
                # What waits for the quiet hours' end, say, is of the time that it has no more.
                self._withdraw_deliveries()

    def cancel(self) -> bool:
        """pending or sending -> cancelled, with its deliveries but for one being sent right now."""
        active = Reminder.objects.filter(pk=self.pk, status__in=self.ACTIVE)
        with transaction.atomic():
            cancelled = active.update(status=self.Status.CANCELLED, updated_at=Now())
            if cancelled:
                self._withdraw_deliveries()
        return bool(cancelled)

    def snooze(self, until: datetime, link: str = "") -> bool:
        """any state but cancelled -> pending until then; its rule goes on afterwards.

        `link` names the link in a mail that asks for it. One that asks twice is refused.
        """
        snoozable = Reminder.objects.filter(pk=self.pk).exclude(status=self.Status.CANCELLED)
        fields: dict[str, Any] = {}
        if link:
            snoozable, fields = snoozable.exclude(snooze_link=link), {"snooze_link": link}
        with transaction.atomic():
            snoozed = snoozable.update(
                status=self.Status.PENDING, scheduled_at=until, updated_at=Now(), **fields
            )
            if snoozed:
                self._withdraw_deliveries()
        return bool(snoozed)

    def _withdraw_deliveries(self) -> None:
        """What waits is cancelled; what is being sent gets no other attempt."""
        active = Delivery.objects.filter(reminder=self, status__in=Delivery.ACTIVE)
        waits = When(status=Delivery.Status.PENDING, then=Value(Delivery.Status.CANCELLED))
        withdrawn = Delivery.objects.filter(pk__in=active.lock())
        withdrawn.update(status=Case(waits, default=F("status")), is_withdrawn=True)

    @classmethod
    def close(cls, ids: Sequence[int]) -> None:
        """sending -> sent, or failed, for those whose deliveries have all ended.

        The caller holds the rows' locks, so that of two last deliveries the second sees the first.
        """
        latest = Delivery.objects.filter(
            reminder=OuterRef("pk"), occurrence_at=OuterRef("scheduled_at")
        )
        open_ = Exists(latest.filter(status__in=Delivery.ACTIVE))
        arrived = Exists(latest.filter(status=Delivery.Status.SENT))
        cls.objects.filter(~open_, pk__in=ids, status=cls.Status.SENDING).update(
            status=Case(
                When(arrived, then=Value(cls.Status.SENT)), default=Value(cls.Status.FAILED)
            ),
            updated_at=Now(),
        )


@receiver(pre_delete, sender=User)
def delete_reminders_first(instance: User, **kwargs: Any) -> None:
    """Before Django deletes what users have, in its own order: see scribes.deletion."""
    Reminder.objects.for_user(instance).delete()


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def pending(self) -> DeliveryQuerySet:
        return self.filter(status=Delivery.Status.PENDING)

    def sending(self) -> DeliveryQuerySet:
        return self.filter(status=Delivery.Status.SENDING)

    def ready(self) -> DeliveryQuerySet:
        """Pending, and its time has come."""
        return self.pending().filter(next_attempt_at__lte=Now())

    def expired(self) -> DeliveryQuerySet:
        """Being sent for longer than a lease."""
        return self.sending().filter(lease_expires_at__lt=Now())

    def mail_of(self, digest: uuid.UUID) -> DeliveryQuerySet:
        """As much of a digest as goes into one mail."""
        earliest = self.filter(digest=digest).order_by("occurrence_at", "pk")
        return self.filter(pk__in=earliest.values("pk")[:DIGEST_MAX_REMINDERS])

    def lock(self) -> list[uuid.UUID]:
        """Their keys, locked in the order of the keys: two processes that want several of the same
        never hold what the other one waits for."""
        rows = self.order_by("pk").select_for_update(no_key=True)
        return list(rows.values_list("pk", flat=True))

    def told_before(self, seconds: int) -> DeliveryQuerySet:
        """Ready ones that no message was sent for, or one so long ago that it may be lost."""
        lost = Q(dispatched_at__lt=Now() - timedelta(seconds=seconds))
        return self.ready().filter(Q(dispatched_at=None) | lost)


class Delivery(models.Model):
    """One occurrence of a reminder on its way to one channel.

        pending --claim--> sending --the far end took it--> sent
           ^------------------'  it may succeed later, or the lease expired
                              '--it never will, or attempts used up--> failed
        pending --the reminder is cancelled or moved--> cancelled
        sending --the same meanwhile, and this attempt failed for now--> cancelled

    `claim_seq` is the fencing token, as in jobs.models.JobBatch. The id is what the far end knows
    it by, the same at each attempt; the mail of a digest it knows by `digest`.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE: ClassVar = (Status.PENDING, Status.SENDING)
    # The status after an attempt that failed for now.
    AGAIN: ClassVar = Case(
        When(is_withdrawn=True, then=Value(Status.CANCELLED)), default=Value(Status.PENDING)
    )

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    reminder = models.ForeignKey(
        Reminder, models.CASCADE, related_name="deliveries", db_index=False
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="deliveries")
    occurrence_at = models.DateTimeField()
    channel = models.CharField(max_length=16, choices=Channel)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    is_late = models.BooleanField(
        default=False, help_text="Found long after its time, as after an outage."
    )
    is_withdrawn = models.BooleanField(
        default=False, help_text="Its reminder was cancelled or moved before it had ended."
    )
    digest = models.UUIDField(null=True, help_text="Goes out in one mail with all that share it.")
    attempts = models.PositiveSmallIntegerField(default=0)
    claim_seq = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True)
    next_attempt_at = models.DateTimeField()
    dispatched_at = models.DateTimeField(
        null=True, help_text="When the latest message for it was sent."
    )
    error = models.TextField(default="", blank=True, help_text="Of the latest attempt.")
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        db_table = "reminder_deliveries"
        verbose_name_plural = "deliveries"
        ordering = ("-occurrence_at", "channel")
        constraints = [
            models.UniqueConstraint(
                fields=["reminder", "occurrence_at", "channel"],
                name="one_delivery_per_occurrence_and_channel",
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(status="pending"),
                name="deliveries_waiting",
            ),
            models.Index(
                fields=["lease_expires_at"],
                condition=Q(status="sending"),
                name="deliveries_in_work",
            ),
            models.Index(
                fields=["digest"],
                condition=Q(status="pending", digest__isnull=False),
                name="deliveries_of_digest",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel} of {self.reminder_id} at {self.occurrence_at:%Y-%m-%d %H:%M} UTC"

    @property
    def lateness_seconds(self) -> float | None:
        """From the time it was due to the time it was sent; None until then."""
        return (self.sent_at - self.occurrence_at).total_seconds() if self.sent_at else None

    @classmethod
    def claim(cls, delivery: Delivery) -> list[Delivery]:
        """pending -> sending, for REMINDER_LEASE_SECONDS: it, and what goes out in the same mail.

        Only its id and its digest need be known. Empty when there is nothing to claim: it is in
        other hands, ended, deleted, or waits for its time.

        At the first attempt a mail's part of a digest becomes a digest of its own, by whose id the
        far end knows it whatever is withdrawn from it later. What joins the digest too late for
        this mail goes out in another one, which the far end must not take for the same.
        """
        mail = When(digest__isnull=False, attempts=0, then=Value(uuid.uuid4()))
        with transaction.atomic():
            ready = cls.objects.ready()
            ids = ready.mail_of(delivery.digest).lock() if delivery.digest else [delivery.pk]
            if not ready.filter(pk__in=ids).update(
                status=cls.Status.SENDING,
                attempts=F("attempts") + 1,
                claim_seq=F("claim_seq") + 1,
                digest=Case(mail, default=F("digest"), output_field=models.UUIDField()),
                lease_expires_at=Now() + timedelta(seconds=settings.REMINDER_LEASE_SECONDS),
            ):
                return []
            ours = cls.objects.select_related("reminder__note", "user")
            return list(ours.filter(pk__in=ids).order_by("occurrence_at", "pk"))

    def _ours(self) -> DeliveryQuerySet:
        return Delivery.objects.sending().filter(pk=self.pk, claim_seq=self.claim_seq)

    def record(self, outcome: DeliveryAttempt.Outcome, reason: str, **fields: Any) -> bool:
        """Leave `sending` with these fields, if the claim is still ours, and note the attempt."""
        reason = storable(reason)
        changed = self._ours().update(lease_expires_at=None, error=reason, **fields)
        if changed:
            DeliveryAttempt.objects.create(
                delivery=self, number=self.attempts, outcome=outcome, reason=reason
            )
        return bool(changed)


class DeliveryAttempt(models.Model):
    """What came of one attempt."""

    class Outcome(models.TextChoices):
        SENT = "sent"
        POSTPONED = "postponed", "failed for now"
        FAILED = "failed", "failed for good"
        LOST = "lost", "its process died"

    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="log", db_index=False)
    number = models.PositiveSmallIntegerField()
    outcome = models.CharField(max_length=16, choices=Outcome)
    reason = models.TextField(blank=True, default="")
    ended_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "reminder_delivery_attempts"
        ordering = ("delivery", "number")
        constraints = [
            models.UniqueConstraint(fields=["delivery", "number"], name="one_row_per_attempt"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.outcome}"


class NotificationQuerySet(models.QuerySet["Notification"]):
    def for_user(self, user: User) -> NotificationQuerySet:
        return self.filter(user=user)

    def unread(self) -> NotificationQuerySet:
        return self.filter(read_at=None)


class Notification(models.Model):
    """What the in-app channel shows. It stays when its reminder is deleted."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="notifications", db_index=False
    )
    reminder = models.ForeignKey(Reminder, models.SET_NULL, null=True)
    delivery = models.OneToOneField(Delivery, models.SET_NULL, null=True)
    title = models.CharField(max_length=300)
    message = models.TextField(blank=True, default="")
    occurrence_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        db_table = "notifications"
        ordering = ("-created_at", "-id")
        indexes = [models.Index(fields=["user", "-created_at", "-id"], name="notifications_newest")]

    def __str__(self) -> str:
        return self.title


def new_feed_secret() -> str:
    return secrets.token_urlsafe(32)


def new_webhook_secret() -> str:
    """In the form of Standard Webhooks: whsec_ and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class ReminderPreferences(models.Model):
    """How one user wants reminders. Times of day are in the user's own zone."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="reminder_preferences"
    )
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_until = models.TimeField(null=True, blank=True)
    digest_at = models.TimeField(null=True, blank=True)
    webhook_url = models.CharField(max_length=2000, blank=True, default="")
    webhook_secret = models.CharField(max_length=100, default=new_webhook_secret)
    feed_secret = models.CharField(max_length=64, unique=True, default=new_feed_secret)

    class Meta:
        db_table = "reminder_preferences"
        verbose_name_plural = "reminder preferences"

    def __str__(self) -> str:
        return f"preferences of {self.user_id}"

    @classmethod
    def of(cls, user: User) -> ReminderPreferences:
        return cls.objects.get_or_create(user=user)[0]

    def renew(self, of: str) -> None:
        """A new secret of the webhook or the feed; the old one is worthless from now on."""
        makers = {"webhook": new_webhook_secret, "feed": new_feed_secret}
        name = f"{of}_secret"
        setattr(self, name, makers[of]())
        self.save(update_fields=[name])

    def after_quiet_hours(self, now: datetime, zone: ZoneInfo) -> datetime:
        """`now`, or the end of the quiet hours that it falls into."""
        if self.quiet_from is None or self.quiet_until is None:
            return now
        today = now.astimezone(zone).date()
        over_midnight = timedelta(days=self.quiet_until < self.quiet_from)
        for day in (today - timedelta(days=1), today):
            # As instants, not by what clocks show: some of that comes twice a year.
            start = to_utc(datetime.combine(day, self.quiet_from), zone)
            end = to_utc(datetime.combine(day + over_midnight, self.quiet_until), zone)
            if start <= now < end:
                return end
        return now

    def next_digest(self, now: datetime, zone: ZoneInfo) -> tuple[uuid.UUID, datetime] | None:
        """The digest that gathers what is due now, and when it goes out; None if there is none."""
        if self.digest_at is None:
            return None
        goes_out = next_time_of_day(self.digest_at, now, zone)
        name = f"digest of {self.user_id} at {goes_out.isoformat()}"
        return uuid.uuid5(uuid.NAMESPACE_URL, name), goes_out


def next_time_of_day(clock: time, now: datetime, zone: ZoneInfo) -> datetime:
    """The next time after `now` that clocks in the zone show this."""
    today = now.astimezone(zone).date()
    times = (to_utc(datetime.combine(today + timedelta(days=n), clock), zone) for n in range(3))
    return next(moment for moment in times if moment > now)
