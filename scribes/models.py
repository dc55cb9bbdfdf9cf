from __future__ import annotations

import zoneinfo
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Lower


def validate_time_zone(name: str) -> None:
    """Raise ValidationError unless `name` is a time zone of the IANA database."""
    if name not in zoneinfo.available_timezones():
        raise ValidationError(f"“{name}” is not an IANA time zone such as Europe/Berlin.")


class TimeZoneField(models.CharField[str, str]):
    """The name of an IANA time zone.

    Migrations see a plain CharField: they must not import the validator, which may change.
    """

    default_validators = (validate_time_zone,)

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Create a user. Without a password, the user cannot sign in with one."""
        user = self.model(email=email, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """A person who signs in with an e-mail address. Case does not matter in the address."""

    username = None  # type: ignore[assignment]
    email = models.EmailField("e-mail address", unique=True)
    time_zone = TimeZoneField(
        max_length=64,
        default="UTC",
        help_text="IANA name, such as Europe/Berlin. This user's reminders use it.",
    )

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[UserManager] = UserManager()  # type: ignore[assignment]

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="one_user_per_email"),
        ]

    def __str__(self) -> str:
        return self.email

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.email = self.email.lower()
        super().save(*args, **kwargs)


class Heartbeat(models.Model):
    """When a process last did the work that `name` stands for: see scribes.monitoring.heartbeats."""

    name = models.CharField(max_length=64)
    process = models.CharField(max_length=300, help_text="host:pid")
    at = models.DateTimeField()

    class Meta:
        db_table = "heartbeats"
        constraints = [
            models.UniqueConstraint(fields=["name", "process"], name="one_heartbeat_per_process"),
        ]

    def __str__(self) -> str:
        return f"{self.name} by {self.process}"
