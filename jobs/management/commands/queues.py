from __future__ import annotations

from collections import Counter
from typing import Any

import redis
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import pluralize

from celery_app import QUEUES
from scribes.messaging import broker, unreadable
from scribes.monitoring.logging import redact


class Command(BaseCommand):
    help = (
        "Print the length of each queue and its waiting messages, the oldest first. Print the messages "
        "that workers dropped because they cannot be read, the latest first."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        help = "number of messages to read from each queue (default 100)"
        parser.add_argument("--limit", type=int, default=100, help=help)

    def handle(self, *args: Any, limit: int, **options: Any) -> None:
        try:
            for queue in QUEUES:
                self._print_queue(queue, limit)
            self._print_dropped(limit)
        except redis.ResponseError as error:
            raise CommandError(f"Redis answers with an error: {error}") from error
        except redis.RedisError as error:
            raise CommandError("Redis does not answer. Run manage.py doctor.") from error

    def _print_queue(self, queue: str, limit: int) -> None:
        length = broker.queue_length(queue)
        self.stdout.write(f"{queue}: {length} message{pluralize(length)} waiting")
        for message, number in Counter(broker.waiting_messages(queue, limit)).items():
            self.stdout.write(f"{number:7} {message}")

    def _print_dropped(self, limit: int) -> None:
        """The messages that no worker could read, if there are any."""
        if not (number := unreadable.count()):
            return
        self.stdout.write(
            f"dropped, since they cannot be read: {number} message{pluralize(number)}"
        )
        for dropped in unreadable.latest()[:limit]:
            line = f"{dropped.at} {dropped.queue}: {dropped.reason}: {dropped.message}"
            self.stdout.write(f"        {redact(line)}")
