"""The admin, as an operator uses it."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from scribes.models import User
from tests.browser.conftest import sign_in
from tests.conftest import Web


def test_signing_in_leads_to_the_front_page(page: Page, web: Web, operator: User):
    sign_in(page, web, operator)
    expect(page.get_by_text("operator@example.com").first).to_be_attached()
