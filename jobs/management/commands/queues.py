from __future__ import annotations

from collections import Counter
from typing import Any

import redis
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import pluralize

from celery_app import QUEUES
from scribes.messaging import broker


class Command(BaseCommand):
    help = "Print the length of each queue and its waiting messages, the oldest first."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        help = "number of messages to read from each queue (default 100)"
        parser.add_argument("--limit", type=int, default=100, help=help)

    def handle(self, *args: Any, limit: int, **options: Any) -> None:
        try:
            for queue in QUEUES:
                length = broker.queue_length(queue)
                self.stdout.write(f"{queue}: {length} message{pluralize(length)} waiting")
                for message, number in Counter(broker.waiting_messages(queue, limit)).items():
                    self.stdout.write(f"{number:7} {message}")
        except redis.RedisError as error:
            raise CommandError("Redis does not answer. Run manage.py doctor.") from error
