"""What is sent for reminders: deliveries, the log of their attempts, and in-app notifications."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from scribes.messaging.leases import Lease, LeaseQuerySet
from scribes.messaging.sanitize import strip_unstorable
from scribes.models import User

# A digest with more reminders is sent as several mails.
DIGEST_MAX_REMINDERS = 100


class Channel(models.TextChoices):
    """How a reminder reaches its user: see reminders.channels, also for how to add one."""

    EMAIL = "email", "e-mail"
    WEBHOOK = "webhook", "webhook"
    IN_APP = "in_app", "in-app"


class DeliveryQuerySet(LeaseQuerySet["Delivery"]):
    def ready(self) -> DeliveryQuerySet:
        """Pending, and due for the next attempt."""
        return self.pending().filter(next_attempt_at__lte=Now())

    def undispatched_or_lost(self, seconds: int) -> DeliveryQuerySet:
        """Ready, but without a message, or with one that was sent more than `seconds` ago."""
        ready = self.ready()
        return ready.filter(dispatched_at=None) | ready.presumed_lost(seconds)

    def mail_of(self, digest: uuid.UUID) -> DeliveryQuerySet:
        """The deliveries of a digest that fit into one mail, the earliest first."""
        earliest = self.filter(digest=digest).order_by("occurrence_at", "pk")
        return self.filter(pk__in=earliest.values("pk")[:DIGEST_MAX_REMINDERS])

    def lock(self) -> list[uuid.UUID]:
        """Lock the rows and return their keys.

        Rows are locked in the order of their keys, so two processes that lock several of the same
        rows never wait for each other.
        """
        rows = self.order_by("pk").select_for_update(no_key=True)
        return list(rows.values_list("pk", flat=True))


class Delivery(Lease):
    """One occurrence of a reminder on its way to one channel.

        pending --claim--> sending --the receiver accepted it--> sent
           ^------------------'  the attempt failed for now, or the lease expired
                              '--it failed for good, or no attempts are left--> failed
        pending --the reminder is cancelled or rescheduled--> cancelled
        sending --the same, and then the attempt failed for now--> cancelled

    The receiver knows a delivery by its id, which is the same at each attempt, and the mail of a
    digest by `digest`.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE: ClassVar = (Status.PENDING, Status.SENDING)
    # The lease's two states.
    PENDING: ClassVar[str] = Status.PENDING
    HELD: ClassVar[str] = Status.SENDING
    # The status after an attempt that failed for now.
    RETRY_STATUS: ClassVar = Case(
        When(is_superseded=True, then=Value(Status.CANCELLED)), default=Value(Status.PENDING)
    )

    # Where db_index is False, another index begins with the same column.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    reminder = models.ForeignKey(
        "reminders.Reminder", models.CASCADE, related_name="deliveries", db_index=False
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="deliveries")
    occurrence_at = models.DateTimeField(help_text="The time this delivery reminds of.")
    channel = models.CharField(max_length=16, choices=Channel)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    is_late = models.BooleanField(
        default=False, help_text="The sweep found it long after its time, as after an outage."
    )
    is_superseded = models.BooleanField(
        default=False,
        help_text="The reminder was cancelled or rescheduled before this delivery ended.",
    )
    digest = models.UUIDField(
        null=True, help_text="Deliveries with the same value are sent in one mail."
    )
    next_attempt_at = models.DateTimeField()
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
        """Seconds from the occurrence to the sending; None if it has not been sent."""
        return (self.sent_at - self.occurrence_at).total_seconds() if self.sent_at else None

    @classmethod
    def claim(cls, delivery: Delivery) -> list[Delivery]:
        """pending -> sending, for REMINDER_LEASE_SECONDS, with all that goes into the same mail.

        Reads only the id and the digest of `delivery`. Returns an empty list if there is nothing to
        claim: another process holds it, or it has ended, was deleted, or is not due yet.

        At the first attempt, the part of a digest that fits into one mail becomes a digest of its
        own. The receiver knows the mail by that id, whatever is taken out of it later. A delivery
        that joins the digest too late is sent as a different mail with a different id.
        """
        is_first_attempt = When(digest__isnull=False, attempts=0, then=Value(uuid.uuid4()))
        digest = Case(is_first_attempt, default=F("digest"), output_field=models.UUIDField())
        with transaction.atomic():
            ready = cls.objects.ready()
            ids = ready.mail_of(delivery.digest).lock() if delivery.digest else [delivery.pk]
            seconds = settings.REMINDER_LEASE_SECONDS
            if not ready.filter(pk__in=ids).claim(seconds, digest=digest):
                return []
            claimed = cls.objects.select_related("reminder__note", "user").filter(pk__in=ids)
            # Only the title of a note is sent, and its content may have a megabyte.
            return list(claimed.defer("reminder__note__content").order_by("occurrence_at", "pk"))

    def record(
        self, outcome: DeliveryAttempt.Outcome, reason: str, *, status: Any, **fields: Any
    ) -> bool:
        """sending -> `status`, and log the attempt; False, and nothing is written, if we lost the
        lease."""
        reason = strip_unstorable(reason)
        is_ours = self.end_lease(status, error=reason, **fields)
        if is_ours:
            DeliveryAttempt.objects.create(
                delivery=self, number=self.attempts, outcome=outcome, reason=reason
            )
        return is_ours


class DeliveryAttempt(models.Model):
    """The outcome of one attempt to send a delivery."""

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
    """An entry of the in-app channel. It stays when its reminder is deleted."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="notifications", db_index=False
    )
    reminder = models.ForeignKey("reminders.Reminder", models.SET_NULL, null=True)
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
