from __future__ import annotations

from collections import Counter
from typing import Any

import redis
from django.core.management.base import BaseCommand, CommandError, CommandParser

from celery_app import QUEUES
from jobs import broker


class Command(BaseCommand):
    help = "The length of each queue, and what waits in it, the oldest first."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--limit", type=int, default=100, help="Look at so many of each.")

    def handle(self, *args: Any, limit: int, **options: Any) -> None:
        try:
            for queue in QUEUES:
                self.stdout.write(f"{queue}: {broker.queue_length(queue)} messages wait")
                for message, number in Counter(broker.waiting(queue, limit)).items():
                    self.stdout.write(f"{number:7} {message}")
        except redis.RedisError as error:
            raise CommandError("Redis cannot be asked; see manage.py doctor.") from error
