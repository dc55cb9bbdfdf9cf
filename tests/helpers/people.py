from __future__ import annotations

from rest_framework.test import APIClient

from scribes.models import User


def client_of(user: User | None) -> APIClient:
    """An API client that is signed in as this user, or that is not signed in for None."""
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(user)
    return client
