"""Each task is one call. A message holds ids only: what is true stands in the rows."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from reminders import sending
from reminders.checks import SWEEP
from reminders.sweep import database_now
from reminders.sweep import sweep as sweep_due
from scribes import heartbeats


@shared_task(acks_late=False)
def sweep() -> None:
    sweep_due(database_now())
    heartbeats.record(SWEEP)


@shared_task
def send_deliveries(delivery_ids: list[str]) -> None:
    sending.send_all([UUID(delivery_id) for delivery_id in delivery_ids])


@shared_task(acks_late=False)
def resend() -> None:
    sending.resend()
