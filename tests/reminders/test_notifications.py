"""In-app notifications, the log of deliveries, and the admin pages."""

from __future__ import annotations

import pytest
from django.test import Client
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import Notification
from tests.helpers.factories import make_reminder
from tests.helpers.mail import MailServer
from tests.helpers.reminders import deliver, retry

# --- Notifications --------------------------------------------------------------------------


@pytest.fixture
def notified(note: Note) -> list[int]:
    for _ in range(3):
        deliver(make_reminder(note, channels=["in_app"], message="Now"))
    return list(Notification.objects.values_list("pk", flat=True))


def test_notifications_are_listed_and_marked_as_read(notified: list[int], api: APIClient):
    page = api.get("/notifications").json()
    assert [entry["id"] for entry in page["notifications"]] == notified
    assert page["notifications"][0]["title"] == "Rest"
    first = api.post(f"/notifications/{notified[0]}/read").json()
    assert first["read_at"] is not None
    assert api.post(f"/notifications/{notified[0]}/read").json() == first
    assert api.get("/notifications?unread=true").json()["total"] == 2
    assert api.get("/notifications?unread=false").json()["total"] == 1
    assert api.post("/notifications/read-all").json() == {"read": 2}
    assert api.post("/notifications/read-all").json() == {"read": 0}


def test_notifications_belong_to_one_user(notified: list[int], api: APIClient, bobs_api: APIClient):
    assert bobs_api.get("/notifications").json()["total"] == 0
    assert bobs_api.post(f"/notifications/{notified[0]}/read").status_code == 404
    assert bobs_api.post("/notifications/read-all").json() == {"read": 0}
    assert api.get("/notifications?unread=true").json()["total"] == 3
    assert api.get("/notifications?unread=x").status_code == 400


def test_notification_stays_when_its_reminder_is_deleted(
    notified: list[int], api: APIClient, note: Note
):
    note.delete()
    assert api.get("/notifications").json()["total"] == 3


# --- Deliveries -----------------------------------------------------------------------------


def test_deliveries_list_each_attempt_with_its_reason(mail: MailServer, api: APIClient, note: Note):
    mail.answer = lambda message: "451 Greylisted"
    reminder = make_reminder(note)
    delivery = deliver(reminder)
    mail.answer = lambda message: "250 OK"
    retry(delivery)
    page = api.get(f"/reminders/{reminder.pk}/deliveries").json()
    (shown,) = page["deliveries"]
    assert page["total"] == 1
    assert (shown["channel"], shown["status"], shown["attempts"]) == ("email", "sent", 2)
    assert shown["lateness_seconds"] > 0
    reasons = [(each["outcome"], each["reason"]) for each in shown["log"]]
    assert reasons == [("postponed", "SMTP 451: Greylisted"), ("sent", "")]
    last = api.get(f"/reminders/{reminder.pk}").json()["last_delivery"]
    assert (last["status"], last["is_late"]) == ("sent", False)


# --- Admin ----------------------------------------------------------------------------------


def test_admin_shows_reminders_with_their_deliveries(
    mail: MailServer, admin_client: Client, note: Note
):
    reminder = make_reminder(note)
    mail.answer = lambda message: "554 <b>Never</b>"
    delivery = deliver(reminder)
    listed = admin_client.get("/admin/reminders/reminder/").content.decode()
    assert "Rest" in listed
    page = admin_client.get(f"/admin/reminders/reminder/{reminder.pk}/change/").content.decode()
    assert "SMTP 554: &lt;b&gt;Never&lt;/b&gt;" in page
    assert "failed for good" in page
    page = admin_client.get(f"/admin/reminders/delivery/{delivery.pk}/change/").content.decode()
    assert "e-mail" in page
    assert admin_client.get("/admin/reminders/delivery/?q=%00").status_code in (200, 302)
    assert admin_client.get("/admin/reminders/reminder/add/").status_code == 403
