"""The options --user and --all-users of management commands."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db.models import QuerySet

from scribes.models import User


def add_user_arguments(parser: ArgumentParser) -> None:
    users = parser.add_mutually_exclusive_group(required=True)
    users.add_argument("--user", help="the e-mail address of one user")
    users.add_argument("--all-users", action="store_true")


def selected_users(options: dict[str, Any]) -> QuerySet[User]:
    """Raises CommandError if there is no such user."""
    if options["all_users"]:
        return User.objects.order_by("pk")
    users = User.objects.filter(email=options["user"].lower())
    if not users.exists():
        raise CommandError(f"There is no user {options['user']}.")
    return users
