"""What the tests with a real browser share."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, ViewportSize

from scribes.models import User
from tests.helpers.servers import Web

PASSWORD = "correct horse battery"
SIZE = ViewportSize(width=1280, height=800)
# For Playwright, which cannot see that a page makes progress. On an idle machine nothing takes 10 s.
PATIENCE_MILLISECONDS = 180_000

TakePicture = Callable[[Page, str], None]


def sign_in(page: Page, web: Web, user: User) -> None:
    """Sign in with the admin's form. The user's password is PASSWORD."""
    page.goto(f"{web.url}/admin/login/?next=/admin/")
    page.fill("input[name=username]", user.email)
    page.fill("input[name=password]", PASSWORD)
    page.click("[type=submit]")
    page.wait_for_url(f"{web.url}/admin/")
