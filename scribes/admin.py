"""What the admin pages of all apps share. They use django-unfold's look if it is installed, and
Django's own otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission
from django.db import DataError, models
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django_celery_beat import admin as _registers_its_pages  # noqa: F401
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)

from scribes.models import Heartbeat, User
from scribes.presentation import relative_time

if TYPE_CHECKING or not apps.is_installed("unfold"):
    from django.contrib.admin import ModelAdmin, TabularInline
    from django.contrib.auth.forms import (
        AdminPasswordChangeForm,
        AdminUserCreationForm,
        UserChangeForm,
    )
else:
    from unfold.admin import ModelAdmin, TabularInline
    from unfold.forms import AdminPasswordChangeForm, UserChangeForm
    from unfold.forms import UserCreationForm as AdminUserCreationForm

__all__ = ["ModelAdmin", "ReadOnlyAdmin", "TabularInline"]

M = TypeVar("M", bound=models.Model)


class ReadOnlyAdmin(ModelAdmin[M]):
    """For rows that only the application changes, never a form."""

    show_full_result_count = False

    class Media:
        css = {"all": ["scribes/admin.css"]}

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Treat a filter that PostgreSQL rejects, such as a NUL, as an invalid filter."""
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


# --- People and processes -------------------------------------------------------------------

admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin[Group]):
    autocomplete_fields = ("permissions",)
    filter_horizontal = ()


@admin.register(Permission)
class PermissionAdmin(ReadOnlyAdmin[Permission]):
    """Registered so that the user form can search permissions."""

    search_fields = ("name", "codename")
    list_select_related = ("content_type",)


@admin.register(User)
class UserAdmin(DjangoUserAdmin[User], ModelAdmin[User]):
    """Django's user admin with the e-mail address in place of the user name."""

    form = UserChangeForm  # type: ignore[assignment] # django-stubs' own
    add_form = AdminUserCreationForm
    change_password_form = AdminPasswordChangeForm
    autocomplete_fields = ("groups", "user_permissions")
    filter_horizontal = ()
    list_display = ("email", "time_zone", "is_staff", "is_active", "date_joined")
    search_fields = ("email",)
    ordering = ("email",)
    fieldsets = (
        (None, {"fields": ("email", "password", "time_zone")}),
        (
            "Permissions",
            {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")},
        ),
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


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin[Heartbeat]):
    list_display = ("name", "process", "latest")
    list_filter = ("name",)
    search_fields = ("name", "process")
    ordering = ("-at",)

    @admin.display(description="latest", ordering="at")
    def latest(self, heartbeat: Heartbeat) -> SafeString | str:
        return relative_time(heartbeat.at)


# --- The schedule ---------------------------------------------------------------------------

# django-celery-beat's pages with the same look.
for model in (PeriodicTask, ClockedSchedule, CrontabSchedule, IntervalSchedule, SolarSchedule):
    base = type(admin.site.get_model_admin(model))
    admin.site.unregister(model)
    admin.site.register(model, type(base.__name__, (base, ModelAdmin), {}))
