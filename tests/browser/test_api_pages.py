"""The browsable API, used by a person."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from scribes.models import User
from tests.helpers.browser import PASSWORD, TakePicture
from tests.helpers.processes import Process, eventually
from tests.helpers.samples import psalm
from tests.helpers.servers import Web

FORM = 'form[enctype="multipart/form-data"].form-horizontal'


@pytest.fixture
def alice(database: None) -> User:
    return User.objects.create_user("alice@example.com", PASSWORD)


@pytest.fixture
def pages(page: Page, web: Web, alice: User) -> Page:
    """A page of alice, who signed in from the front page."""
    page.goto(web.url)
    page.get_by_role("link", name="Log in").click()
    page.fill("input[name=username]", alice.email)
    page.fill("input[name=password]", PASSWORD)
    page.click("[type=submit]")
    expect(page).to_have_url(f"{web.url}/")
    expect(page.get_by_text(alice.email)).to_be_visible()
    return page


def submit(page: Page, button: str = "POST", **fields: str) -> None:
    for name, text in fields.items():
        page.fill(f"{FORM} [name={name}]", text)
    page.locator(FORM).get_by_role("button", name=button, exact=True).click()


def open_dialog(page: Page, button: str) -> None:
    """Click only when the page's scripts have run: before that, the button does nothing."""
    page.wait_for_load_state("load")
    page.get_by_role("button", name=button).click()


def test_note_is_created_edited_and_deleted_by_forms(pages: Page, web: Web):
    pages.get_by_role("link", name=f"{web.url}/notes", exact=True).click()
    submit(pages, title="", content="By grace\nyou have been saved.")
    expect(pages.locator(".has-error")).to_contain_text("This field may not be blank.")
    submit(pages, title="Grace", tags="ephesians\nfaith")
    expect(pages.locator(".response-info")).to_contain_text("HTTP 201 Created")

    pages.get_by_role("link", name="Note", exact=True).click()
    expect(pages.locator(f"{FORM} [name=content]")).to_have_value("By grace\nyou have been saved.")
    submit(pages, "PATCH", title="")
    expect(pages.locator(".has-error")).to_contain_text("This field may not be blank.")
    submit(pages, "PATCH", title="Saved by grace")
    expect(pages.locator(".resources")).to_contain_text("Saved by grace")
    note = re.sub("&quot;", '"', pages.locator(".response-info").inner_text())
    assert '"ephesians",\n        "faith"' in note

    open_dialog(pages, "DELETE")
    pages.locator("#deleteModal .btn-danger").click()
    expect(pages.locator(".response-info")).to_contain_text("HTTP 204 No Content")


def test_regeneration_is_started_by_its_form_and_followed(
    pages: Page, web: Web, worker: Process, alice: User, take_picture: TakePicture
):
    for number in (1, 23, 46, 121):
        alice.notes.create(**psalm(number))
    pages.goto(f"{web.url}/semantic/regenerate-embeddings")
    expect(pages.locator(".response-info")).to_be_hidden()
    submit(pages)
    pages.get_by_role("link", name="Job", exact=True).click()

    def ended() -> bool:
        pages.reload()
        return "completed, 100 %" in pages.locator(".resources").inner_text()

    eventually(ended)
    expect(pages.locator(".response-info")).to_contain_text('"embedded_notes": 4')

    pages.goto(f"{web.url}/semantic/search")
    submit(pages, query="my shepherd")
    expect(pages.locator(".resources li").first).to_contain_text("Psalm 23")
    expect(pages.locator(f"{FORM} [name=query]")).to_have_value("my shepherd")

    pages.goto(f"{web.url}/notes?limit=2")
    take_picture(pages, "browsable-api")


def test_list_has_filters_and_pages(pages: Page, web: Web, alice: User):
    for number in (1, 23, 46):
        alice.notes.create(**psalm(number))
    pages.goto(f"{web.url}/notes?limit=2")
    pages.get_by_role("link", name="2", exact=True).click()
    expect(pages.locator(".resources li")).to_have_count(1)
    open_dialog(pages, "Filters")
    pages.locator("#filtersModal [name=scripture]").fill("Psalm 23:4")
    pages.locator("#filtersModal .btn-primary").click()
    expect(pages.locator(".resources .name")).to_have_text(["Psalm 23"])


def test_documentation_works_without_other_machines(
    page: Page, web: Web, take_picture: TakePicture
):
    page.goto(f"{web.url}/docs")
    expect(page.get_by_text("/semantic/regenerate-embeddings")).to_be_visible()
    take_picture(page, "swagger")
