"""manage.py regenerate_embeddings, run as in a shell."""

from __future__ import annotations

import os
import subprocess

import pytest
from django.core.management import CommandError, call_command

from jobs.models import BackgroundJob
from notes.models import Passage
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.jobs import run_job
from tests.helpers.notes import embed_note
from tests.helpers.processes import LONGEST_WAIT_SECONDS, MANAGE, Process, environment
from tests.helpers.samples import psalm


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MANAGE, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_SECONDS,
    )


def test_command_prints_lines_when_not_on_a_terminal(alice: User, bob: User, worker: Process):
    for user in (alice, bob):
        make_note(user, **psalm(117))
    done = manage("regenerate_embeddings", "--all-users")
    assert done.returncode == 0, done.stderr
    assert "alice@example.com: job " in done.stdout
    assert "bob@example.com: job " in done.stdout
    assert done.stdout.splitlines()[-1] == "2 of 2 notes"
    assert Passage.objects.count() == 2
    assert manage("regenerate_embeddings", "--all-users", "--stale").returncode == 0


def test_command_shows_a_bar_on_a_terminal(alice: User, worker: Process):
    make_note(alice, **psalm(117))
    screen, terminal = os.openpty()
    command = [*MANAGE, "regenerate_embeddings", "--user", "alice@example.com"]
    process = subprocess.run(
        command,
        env=environment(TERM="xterm"),
        stdout=terminal,
        stdin=terminal,
        timeout=LONGEST_WAIT_SECONDS,
    )
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    assert process.returncode == 0
    assert "Embedding notes" in shown
    assert "100%" in shown
    assert "1 of 1 notes" not in shown


def test_dry_run_prints_an_estimate_and_starts_no_job(
    alice: User, capsys: pytest.CaptureFixture[str]
):
    make_note(alice, **psalm(117))
    call_command("regenerate_embeddings", "--user", "Alice@example.com", "--dry-run")
    assert "alice@example.com: 1 notes, about 1 passages" in capsys.readouterr().out
    assert not BackgroundJob.objects.exists()


def test_failed_option_selects_failed_notes_only(alice: User, bob: User, settings):
    """Alice keeps the model of her first vectors, whatever the settings say."""
    old = make_note(alice, **psalm(117))
    embed_note(old.pk)
    settings.EMBEDDING_MODEL = "/nowhere"
    his = make_note(bob, **psalm(133))
    call_command("regenerate_embeddings", "--all-users", "--no-wait")
    counts = {job.user: run_job(job).failed_items for job in BackgroundJob.objects.all()}
    assert counts == {alice: 0, bob: 1}
    call_command("regenerate_embeddings", "--all-users", "--failed", "--no-wait")
    again = BackgroundJob.objects.active().get()
    assert again.parameters["item_ids"] == [his.pk]


def test_unknown_user_is_an_error(db: None):
    with pytest.raises(CommandError, match=r"There is no user nobody@example\.com"):
        call_command("regenerate_embeddings", "--user", "nobody@example.com")


@pytest.mark.parametrize(
    "arguments", [(), ("--user", "a", "--all-users"), ("--all-users", "--stale", "--failed")]
)
def test_contradictory_arguments_are_refused(arguments: tuple[str, ...]):
    with pytest.raises(CommandError):
        call_command("regenerate_embeddings", *arguments)
