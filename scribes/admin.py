from __future__ import annotations

from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db import DataError, models
from django.http import HttpRequest

from scribes.models import User

M = TypeVar("M", bound=models.Model)


@admin.register(User)
class UserAdmin(DjangoUserAdmin[User]):
    """Django's own, with the e-mail address in place of the user name."""

    list_display = ("email", "time_zone", "is_staff", "is_active", "date_joined")
    search_fields = ("email",)
    ordering = ("email",)
    fieldsets = (
        (None, {"fields": ("email", "password", "time_zone")}),
        ("Permissions", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (
            None,
            {
                "classes": ("wide",),
                "fields": ("email", "usable_password", "password1", "password2"),
            },
        ),
    )


class ReadOnlyAdmin(admin.ModelAdmin[M]):
    """For rows that change by their transitions, not by a form."""

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """A filter that PostgreSQL refuses, such as a NUL, is a wrong filter, not an error."""
        try:
            return super().get_changelist_instance(request)
        except (DataError, OverflowError, ValueError) as error:
            raise IncorrectLookupParameters(error) from error

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
