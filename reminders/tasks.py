"""The tasks of reminders. A message holds ids only; everything else is read from the rows."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from reminders import retrying, sending
from reminders.dispatch import database_now
from reminders.probes import SWEEP
from reminders.sweep import sweep as sweep_due_reminders
from scribes.monitoring import heartbeats


@shared_task(acks_late=False)
def sweep() -> None:
    sweep_due_reminders(database_now())
    heartbeats.record(SWEEP)


@shared_task
def send_deliveries(delivery_ids: list[str]) -> None:
    sending.send_batch([UUID(delivery_id) for delivery_id in delivery_ids])


@shared_task(acks_late=False)
def retry_due_deliveries() -> None:
    retrying.retry_due_deliveries()
