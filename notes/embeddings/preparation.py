"""The model in OpenVINO's format: converted once for each data folder, and checked before each use.

`prepare` starts a process for it, which holds a file lock while it works. Other processes that need
the same model wait for that lock and then find the result. The operating system releases the lock
when the process ends, even after SIGKILL.

The files are written into a temporary folder, which is renamed once they are complete, so nothing
is ever written into files that another process reads. Their checksums are written with them: a
folder whose files do not match is made again.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import logging
import logging.config
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from threading import Thread

from django.conf import settings
from filelock import FileLock

from scribes.messaging.failpoints import failpoint

# Between the conversion and the rename.
FAILPOINTS = ("model_converted",)
NETWORK = "model.xml"
FILES = (NETWORK, "model.bin")
CHECKSUMS = "sha256.json"
# Part of the folder's name. Increase it when notes.embeddings.convert makes another network.
FORMAT = 2
# A process that takes longer, waiting included, has hung. A conversion takes some seconds, and on a
# busy machine some minutes.
LIMIT_SECONDS = 1800
RENEW_SECONDS = 0.5

logger = logging.getLogger("scribes.embeddings")


class PreparationFailed(RuntimeError):
    """The model cannot be converted; the message has the end of the error output."""


def prepare(model: Path, model_version: str, renew: Callable[[], None] = lambda: None) -> Path:
    """The path of the converted model. Converts it first if needed, or waits for who does.

    Takes 0.1 s if the model is converted, and half an hour (LIMIT_SECONDS) at most. Calls `renew`
    about twice per second meanwhile; if that raises an error, the conversion goes on without this
    process. Raises PreparationFailed.
    """
    target = _folder(model_version)
    if not is_complete(target):
        _run_preparer(model, target, renew)
    return target / NETWORK


def is_complete(folder: Path) -> bool:
    """Whether the converted model is there and its files are as they were written."""
    try:
        expected = json.loads((folder / CHECKSUMS).read_text())
        return bool(expected == _checksums(folder))
    except (OSError, ValueError):
        return False


def _folder(model_version: str) -> Path:
    try:
        release = version("openvino")
    except PackageNotFoundError as error:
        raise PreparationFailed("OpenVINO is not installed") from error
    folder: Path = settings.DATA_DIR / "models" / f"{model_version}-openvino-{release}-{FORMAT}"
    return folder


def _checksums(folder: Path) -> dict[str, str]:
    checksums = {}
    for name in FILES:
        with (folder / name).open("rb") as file:
            checksums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


def _run_preparer(model: Path, target: Path, renew: Callable[[], None]) -> None:
    """Convert in a separate process, so that this one never holds torch and a second copy."""
    command = [sys.executable, "-m", "notes.embeddings.preparation", str(model), str(target)]
    # A file and not a pipe: if this process is killed, the other one must be able to finish.
    with TemporaryFile("w+", errors="replace") as errors:
        try:
            process = subprocess.Popen(command, cwd=settings.BASE_DIR, stderr=errors)
        except OSError as error:
            raise PreparationFailed(f"No process can be started: {error}") from error
        if _wait(process, renew):
            errors.seek(0)
            raise PreparationFailed(f"Converting it for OpenVINO failed: {errors.read()[-2000:]}")


def _wait(process: subprocess.Popen[bytes], renew: Callable[[], None]) -> int:
    """The exit status. The process ends by itself, after LIMIT_SECONDS at most."""
    while process.poll() is None:
        try:
            renew()
        except BaseException:
            # Something must collect its exit status when it ends.
            Thread(target=process.wait, daemon=True).start()
            raise
        with suppress(subprocess.TimeoutExpired):
            process.wait(RENEW_SECONDS)
    return process.returncode


# --- In the separate process ----------------------------------------------------------------


def main(model: str, target: str) -> None:
    """Convert the model into the folder `target`, unless another process has done so by then."""
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
    logging.config.dictConfig(settings.LOGGING)
    folder = Path(target)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not is_complete(folder):
            _make(model, folder)


def _make(model: str, folder: Path) -> None:
    """Write the complete folder, and delete what killed processes left behind."""
    from notes.embeddings.convert import convert

    started = time.monotonic()
    logger.info("Converting the model in %s for OpenVINO", model)
    for unfinished in folder.parent.glob(f"{folder.name}.*.unfinished"):
        shutil.rmtree(unfinished, ignore_errors=True)
    work = Path(mkdtemp(".unfinished", f"{folder.name}.", folder.parent))
    try:
        convert(model, str(work / NETWORK))
        (work / CHECKSUMS).write_text(json.dumps(_checksums(work)))
        failpoint("model_converted")
        shutil.rmtree(folder, ignore_errors=True)  # it was damaged
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    logger.info("Converted it in %.1f s", time.monotonic() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
