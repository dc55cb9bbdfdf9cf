from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from notes import indexing, serving
from notes.management.commands.regenerate_embeddings import add_user_arguments, users
from notes.models import Note
from scribes.models import User


class Command(BaseCommand):
    help = (
        "After a change of the embedding model (regenerate_embeddings --model): go back to the "
        "model of before, or drop its vectors."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_user_arguments(parser)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--back", action="store_true", help="search with the model of before")
        what.add_argument("--stay", action="store_true", help="do not go over to another model")
        what.add_argument("--drop-old", action="store_true", help="delete what is not searched")

    def handle(self, *args: Any, **options: Any) -> None:
        people = users(options)
        if options["back"]:
            went = sum(map(go_back, people))
            self.stdout.write(f"{went} users went back to the model of before.")
        elif options["stay"]:
            stayed = sum(map(serving.abandon, people))
            self.stdout.write(f"{stayed} users stay with their model.")
        else:
            dropped = sum(map(serving.drop_unused, people))
            self.stdout.write(f"{dropped} passages were dropped.")


def go_back(user: User) -> bool:
    """Notes edited in the meantime lack vectors of the model of before: they become due."""
    went = serving.go_back(user)
    if went:
        indexing.make_due(Note.objects.for_user(user).stale(serving.of(user)))
    return went
