"""Sign-up, sign-in, refresh and sign-out over HTTP, with bearer tokens and with sessions."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from scribes.models import User
from tests.helpers.processes import run_concurrently

PASSWORD = "correct horse battery"
ALICE = {"email": "alice@example.com", "password": PASSWORD}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def reset_rate_limits() -> None:
    cache.clear()


def post(name: str, body: Any, token: str | None = None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client().post(f"/auth/{name}", body, "application/json", headers=headers)


def me(token: str):
    return Client().get("/me", headers={"Authorization": f"Bearer {token}"})


def sign_up(body: dict[str, str] = ALICE) -> dict[str, str]:
    response = post("signup", body)
    assert response.status_code == 200, response.content
    meta: dict[str, str] = response.json()["meta"]
    return meta


def test_sign_up_returns_a_token_that_works():
    token = sign_up()["access_token"]
    body = me(token).json()
    assert (body["email"], body["time_zone"]) == ("alice@example.com", "UTC")


def test_sign_in_needs_the_right_password():
    sign_up()
    accepted = post("login", ALICE)
    assert me(accepted.json()["meta"]["access_token"]).status_code == 200
    rejected = post("login", ALICE | {"password": "a wrong guess"})
    assert rejected.status_code == 400
    assert rejected.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("alice", PASSWORD),
        ("", PASSWORD),
        ("alice@example.com", "short"),
        ("alice@example.com", "password123"),
        ("alice@example.com", "1234567890123"),
    ],
)
def test_sign_up_rejects_bad_addresses_and_weak_passwords(email: str, password: str):
    assert post("signup", {"email": email, "password": password}).status_code == 400
    assert not User.objects.exists()


def test_an_address_has_one_account_in_upper_and_lower_case():
    sign_up()
    assert post("signup", ALICE | {"email": "Alice@Example.com"}).status_code == 400
    assert User.objects.count() == 1
    assert post("login", ALICE | {"email": "ALICE@example.com"}).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_sign_up_accepts_one_of_many_concurrent_requests():
    answers = run_concurrently(6, lambda _: post("signup", ALICE).status_code)
    assert sorted(answers) == [200, 400, 400, 400, 400, 400]
    assert User.objects.count() == 1


def test_sign_in_works_for_an_account_created_in_the_admin(admin_client: Client):
    form = {"email": "Bob@Example.com", "usable_password": "true"}
    form |= {"password1": PASSWORD, "password2": PASSWORD}
    assert admin_client.post("/admin/scribes/user/add/", form).status_code == 302
    assert post("login", {"email": "bob@example.com", "password": PASSWORD}).status_code == 200


def test_password_change_replaces_the_old_password():
    token = sign_up()["access_token"]
    change = {"current_password": PASSWORD, "new_password": "another horse battery"}
    assert post("password", change | {"current_password": "wrong"}, token).status_code == 400
    assert post("password", change, token).status_code in (200, 401)
    assert post("login", ALICE).status_code == 400
    assert post("login", ALICE | {"password": "another horse battery"}).status_code == 200


def test_refresh_returns_new_tokens_and_revokes_the_old_one():
    old = sign_up()["refresh_token"]
    new = post("refresh", {"refresh_token": old}).json()["data"]
    assert me(new["access_token"]).status_code == 200
    assert post("refresh", {"refresh_token": old}).status_code == 400
    assert post("refresh", {"refresh_token": new["refresh_token"]}).status_code == 200


def test_sign_out_revokes_both_tokens_at_once():
    tokens = sign_up()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert Client().delete("/auth/session", headers=headers).status_code == 401
    assert me(tokens["access_token"]).status_code == 401
    refreshed = post("refresh", {"refresh_token": tokens["refresh_token"]})
    assert refreshed.status_code == 400


@pytest.mark.parametrize("change", ["disable", "delete", "change password"])
def test_token_is_rejected_as_soon_as_its_account_changes(change: str):
    token = sign_up()["access_token"]
    alice = User.objects.get()
    if change == "disable":
        User.objects.update(is_active=False)
    elif change == "delete":
        alice.delete()
    else:
        alice.set_password("another horse battery")
        alice.save()
    assert me(token).status_code == 401


@pytest.mark.parametrize("token", ["", "x", "x.y.z", "eyJhbGciOiJub25lIn0.e30.", "\u00ff"])
def test_forged_token_is_401_with_a_message(token: str):
    response = me(token)
    assert response.status_code == 401
    assert response.json()["errors"][0]["message"]


def test_missing_token_is_401_with_www_authenticate():
    response = Client().get("/me")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_me_accepts_only_iana_time_zones():
    token = sign_up()["access_token"]

    def patch(zone: str):
        headers = {"Authorization": f"Bearer {token}"}
        return Client().patch("/me", {"time_zone": zone}, "application/json", headers=headers)

    assert patch("Europe/Berlin").json()["time_zone"] == "Europe/Berlin"
    for wrong in ("Berlin", "", "../../etc/passwd", "UTC+1"):
        response = patch(wrong)
        assert (response.status_code, response.json()["errors"][0]["param"]) == (400, "time_zone")
    assert User.objects.get().time_zone == "Europe/Berlin"


def test_login_page_signs_a_browser_in_with_a_session(client: Client):
    User.objects.create_user("alice@example.com", PASSWORD)
    page = client.get("/login/")
    assert page.status_code == 200
    answer = client.post("/login/?next=/notes", {"username": ALICE["email"], "password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/notes")
    page = client.get("/notes", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert b"alice@example.com" in page.content


def test_session_without_a_csrf_token_changes_nothing():
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.create_user("alice@example.com", PASSWORD))
    response = browser.post("/notes", {"title": "Forged"}, "application/json")
    assert response.status_code == 403
