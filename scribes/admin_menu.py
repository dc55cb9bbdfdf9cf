"""The side menu of the admin, for django-unfold's setting SIDEBAR."""

from __future__ import annotations

from typing import Any

from django.urls import reverse_lazy


def navigation(flower_url: str) -> list[dict[str, Any]]:
    return [
        _section(
            "",
            ("Dashboard", "monitoring", "/admin/"),
            ("Jobs", "stacks", "jobs.backgroundjob"),
            ("Failures", "error", "jobs.itemfailure"),
        ),
        _section(
            "Notes",
            ("Notes", "description", "notes.note"),
            ("Embedding models", "model_training", "notes.userembeddingmodel"),
        ),
        _section(
            "Reminders",
            ("Reminders", "alarm", "reminders.reminder"),
            ("Deliveries", "outgoing_mail", "reminders.delivery"),
            ("Notifications", "notifications", "reminders.notification"),
        ),
        _section(
            "System",
            ("Users", "person", "scribes.user"),
            ("Groups", "group", "auth.group"),
            ("Schedule", "calendar_clock", "django_celery_beat.periodictask"),
            ("Heartbeats", "ecg_heart", "scribes.heartbeat"),
            ("Flower", "local_florist", flower_url),
            ("API", "api", "/docs"),
        ),
    ]


def _section(title: str, *items: tuple[str, str, str]) -> dict[str, Any]:
    """A section of (label, icon, target). The target is a URL, or a model as app.model."""
    return {"title": title, "separator": bool(title), "items": [_item(*item) for item in items]}


def _item(label: str, icon: str, target: str) -> dict[str, Any]:
    """A link to a model's list is shown only to people who may see the model."""
    if "/" in target:
        return {"title": label, "icon": icon, "link": target}
    return {
        "title": label,
        "icon": icon,
        "link": reverse_lazy(f"admin:{target.replace('.', '_')}_changelist"),
        "permission": lambda request: request.user.has_perm(target.replace(".", ".view_")),
    }
