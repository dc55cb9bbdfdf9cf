from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from notes.embeddings.rollout import cancel_rollout, drop_unused, roll_back
from notes.management.user_selection import add_user_arguments, selected_users


class Command(BaseCommand):
    help = (
        "Undo or complete a switch to another embedding model, which regenerate_embeddings --model "
        "starts."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_user_arguments(parser)
        action = parser.add_mutually_exclusive_group(required=True)
        action.add_argument(
            "--roll-back", action="store_true", help="search with the previous model again"
        )
        action.add_argument(
            "--cancel", action="store_true", help="keep the model and cancel the switch"
        )
        action.add_argument(
            "--drop-old", action="store_true", help="delete vectors that are not in use"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        users = selected_users(options)
        if options["roll_back"]:
            count = sum(map(roll_back, users))
            self.stdout.write(f"{count} users search with their previous model again.")
        elif options["cancel"]:
            count = sum(map(cancel_rollout, users))
            self.stdout.write(f"{count} users keep their model.")
        else:
            count = sum(map(drop_unused, users))
            self.stdout.write(f"{count} passages were deleted.")
