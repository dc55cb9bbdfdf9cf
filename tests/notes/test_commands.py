"""manage.py regenerate_embeddings, as somebody at a shell meets it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from django.core.management import CommandError, call_command

from jobs.models import BackgroundJob
from notes.models import Note, Passage
from notes.tasks import embed_note
from scribes.management.commands.demo import psalm
from scribes.models import User
from tests.notes.test_indexing import run
from tests.processes import MANAGE, Process, environment

Manage = Callable[..., subprocess.CompletedProcess[str]]


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MANAGE, *arguments], env=environment(), capture_output=True, text=True, timeout=120
    )


def test_all_users_with_a_worker_and_plain_lines(alice: User, bob: User, worker: Process):
    for user in (alice, bob):
        Note.objects.create(user=user, **psalm(117))
    done = manage("regenerate_embeddings", "--all-users")
    assert done.returncode == 0, done.stderr
    assert "alice@example.com: job " in done.stdout
    assert "bob@example.com: job " in done.stdout
    assert done.stdout.splitlines()[-1] == "2 of 2 notes"
    assert Passage.objects.count() == 2
    assert manage("regenerate_embeddings", "--all-users", "--stale").returncode == 0


def test_a_bar_on_a_terminal(alice: User, worker: Process):
    Note.objects.create(user=alice, **psalm(117))
    screen, terminal = os.openpty()
    command = [*MANAGE, "regenerate_embeddings", "--user", "alice@example.com"]
    process = subprocess.run(
        command, env=environment(TERM="xterm"), stdout=terminal, stdin=terminal, timeout=60
    )
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    assert process.returncode == 0
    assert "Embedding notes" in shown
    assert "100%" in shown
    assert "1 of 1 notes" not in shown


def test_a_dry_run_counts_and_starts_nothing(alice: User, capsys: pytest.CaptureFixture[str]):
    Note.objects.create(user=alice, **psalm(117))
    call_command("regenerate_embeddings", "--user", "Alice@example.com", "--dry-run")
    assert "alice@example.com: 1 notes, about 1 passages" in capsys.readouterr().out
    assert not BackgroundJob.objects.exists()


def test_failed_takes_only_what_failed(alice: User, bob: User, settings):
    """Alice has the model of her first vectors, whatever the settings say."""
    old = Note.objects.create(user=alice, **psalm(117))
    embed_note(old.pk)
    settings.EMBEDDING_MODEL = "/nowhere"
    his = Note.objects.create(user=bob, **psalm(133))
    call_command("regenerate_embeddings", "--all-users", "--no-wait")
    counts = {job.user: run(job).failed_items for job in BackgroundJob.objects.all()}
    assert counts == {alice: 0, bob: 1}
    call_command("regenerate_embeddings", "--all-users", "--failed", "--no-wait")
    again = BackgroundJob.objects.active().get()
    assert again.parameters["item_ids"] == [his.pk]


def test_an_unknown_user_is_an_error(db: None):
    with pytest.raises(CommandError, match=r"There is no user nobody@example\.com"):
        call_command("regenerate_embeddings", "--user", "nobody@example.com")


@pytest.mark.parametrize(
    "arguments", [(), ("--user", "a", "--all-users"), ("--all-users", "--stale", "--failed")]
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...]):
    with pytest.raises(CommandError):
        call_command("regenerate_embeddings", *arguments)
