"""Pages that need no signing in: the secret or signature in their URL is the permission."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from reminders import links
from reminders.feed import feed
from reminders.models import ReminderPreferences
from scribes.api.errors import problem


class CalendarFeed(View):
    """The calendar of the user with this secret."""

    def get(self, request: HttpRequest, secret: str) -> HttpResponse:
        found = ReminderPreferences.objects.select_related("user").filter(feed_secret=secret)
        preferences = found.filter(user__is_active=True).first()
        if preferences is None:
            return problem(404, "There is no such feed. Its secret may have been replaced.")
        response = HttpResponse(feed(preferences), content_type="text/calendar; charset=utf-8")
        response.headers["Cache-Control"] = "private, max-age=300"
        return response


# No cookie is involved, so there is nothing to protect against cross-site requests.
@method_decorator(csrf_exempt, name="dispatch")
class SignedLink(View):
    """The page of a link in a mail: see reminders.links."""

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        return self._page(request, token)

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        return self._page(request, token)

    def _page(self, request: HttpRequest, token: str) -> HttpResponse:
        action = links.parse_token(token)
        if action is None:
            return problem(404, "This link is invalid, or the reminder was deleted.")
        page = {"title": action.reminder.note.title, "label": links.LABELS[action.action]}
        if request.method == "POST":
            page["result"] = links.execute(action, timezone.now())
        return render(request, "reminders/link.html", page)
