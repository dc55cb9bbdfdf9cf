"""The routes of Scribes, and a view that only authenticates: the least that an answer costs."""

from __future__ import annotations

from allauth.headless.contrib.rest_framework.authentication import JWTTokenAuthentication
from django.http import HttpRequest, JsonResponse
from django.urls import path

from scribes.urls import handler400, handler404, handler500, urlpatterns

__all__ = ["handler400", "handler404", "handler500", "urlpatterns"]


def bare(request: HttpRequest) -> JsonResponse:
    user, _ = JWTTokenAuthentication().authenticate(request)
    return JsonResponse({"id": user.pk})


urlpatterns = [*urlpatterns, path("bare", bare)]
