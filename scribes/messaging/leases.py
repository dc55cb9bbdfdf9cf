"""Leases: rows that one process at a time works on, for a limited time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar

from django.db import models
from django.db.models import F
from django.db.models.functions import Now

L = TypeVar("L", bound="Lease")


class LeaseQuerySet(models.QuerySet[L]):
    def pending(self) -> Self:
        return self.filter(status=self.model.PENDING)

    def held(self) -> Self:
        return self.filter(status=self.model.HELD)

    def held_by(self, lease: Lease) -> Self:
        """The row of this lease, if nobody has claimed or ended it since."""
        return self.held().filter(pk=lease.pk, claim_seq=lease.claim_seq)

    def expired(self) -> Self:
        """Held, but not renewed in time: the process that held it died or hangs."""
        return self.held().filter(lease_expires_at__lt=Now())

    def presumed_lost(self, seconds: int) -> Self:
        """Pending, although a message was sent more than `seconds` ago: the message may be lost."""
        return self.pending().filter(dispatched_at__lt=Now() - timedelta(seconds=seconds))

    def claim(self, seconds: int, **fields: Any) -> int:
        """-> held for `seconds`, for all rows of this queryset; the number of rows.

        The queryset must name the states to start from: of two processes, one changes the row.
        """
        return self.update(
            status=self.model.HELD,
            attempts=F("attempts") + 1,
            claim_seq=F("claim_seq") + 1,
            lease_expires_at=Now() + timedelta(seconds=seconds),
            **fields,
        )

    def renew(self, seconds: int) -> int:
        """Hold these rows for `seconds` from now; the number of rows."""
        return self.update(lease_expires_at=Now() + timedelta(seconds=seconds))


class Lease(models.Model):
    """The part of a row that says who works on it.

        pending --claim--> held --end_lease--> pending again, or a terminal state
           ^-----------------'  the lease expired, and a periodic task released it

    `claim_seq` is the fencing token: it grows with every claim, and a process can renew or end only
    the lease that it claimed. A process that lost its lease therefore writes nothing.

    Leases expire by the database's clock. Nothing happens at that moment: a periodic task has to
    release the rows of `expired()`.

    A subclass has a field `status`, names two of its states PENDING and HELD, and has a manager made
    of a LeaseQuerySet.
    """

    PENDING: ClassVar[str]
    HELD: ClassVar[str]

    attempts = models.PositiveSmallIntegerField(default=0)
    claim_seq = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True)
    dispatched_at = models.DateTimeField(
        null=True, help_text="When the latest message about it was sent."
    )
    error = models.TextField(default="", blank=True, help_text="Why the latest attempt failed.")

    class Meta:
        abstract = True

    def end_lease(self, status: str, **fields: Any) -> bool:
        """held -> `status`; False, and nothing is written, if this process lost the lease."""
        rows: LeaseQuerySet[Self] = type(self)._default_manager.all()  # type: ignore[assignment]
        ended = rows.held_by(self).update(status=status, lease_expires_at=None, **fields)
        return bool(ended)
