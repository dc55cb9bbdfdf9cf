"""The shape of the code: small modules and functions, imports at the top, light processes.

import-linter checks the floors and that there are no circles: see `make lint`.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from tests.helpers.processes import last_line_of

ROOT: Path = settings.BASE_DIR
FLOORS = ("scribes", "jobs", "notes", "reminders")
MAX_LINES = 350
# These take long to import, and most processes never need them.
SLOW_IMPORTS = {"torch", "transformers", "sentence_transformers", "openvino"}
# Django wants these imports after all apps are loaded, pythonbible takes 0.15 s, and a process that
# waits for another one to convert the model need not load torch.
LATE_IMPORTS = {
    "scribes/apps.py",
    "jobs/apps.py",
    "notes/apps.py",
    "reminders/apps.py",
    "notes/scripture/canon.py",
    "notes/embeddings/preparation.py",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    files = [file for floor in FLOORS for file in (ROOT / floor).rglob("*.py")]
    return [ROOT / "celery_app.py", *(f for f in files if "migrations" not in f.parts)]


def functions() -> Iterator[tuple[Path, Function]]:
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield file, node


def imported_names(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or ""


def test_modules_over_the_limit_state_a_reason():
    for file in modules():
        if len(file.read_text().splitlines()) > MAX_LINES:
            docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
            assert "makes this module longer" in docstring, file


def test_functions_are_small():
    lengths = sorted((node.end_lineno or 0) - node.lineno + 1 for _, node in functions())
    assert statistics.median(lengths) <= 6
    assert lengths[int(len(lengths) * 0.9)] <= 14


def test_functions_import_only_slow_libraries():
    late = {
        (str(file.relative_to(ROOT)), name)
        for file, node in functions()
        for name in imported_names(node)
        if name.split(".")[0] not in SLOW_IMPORTS
    }
    assert {file for file, _ in late} <= LATE_IMPORTS, late


def test_migrations_import_no_project_code():
    files = list(ROOT.glob("*/migrations/0*.py"))
    assert files
    for file in files:
        names = imported_names(ast.parse(file.read_text()))
        assert not [name for name in names if name.split(".")[0] in FLOORS], file


@pytest.mark.usefixtures("servers")
def test_processes_that_embed_nothing_load_no_slow_library():
    """`manage.py check`, web, beat, Flower and an idle worker: all their imports in one process."""
    code = """
import sys
from celery_app import app
app.loader.import_default_modules()
assert "jobs.tasks.run_batch" in app.tasks
import celery.bin.celery, flower.command, flowerconfig, scribes.monitoring.beat, scribes.wsgi
from django.core import checks
assert not checks.run_checks()
slow = {"torch", "transformers", "sentence_transformers", "openvino", "pythonbible"}
print(sorted(slow & set(sys.modules)))
"""
    assert last_line_of(code) == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell how much memory is shared")
@pytest.mark.usefixtures("servers")
def test_pool_process_keeps_sharing_imported_memory():
    """Even after its garbage collector has visited everything, which would unshare 49 MB."""
    code = """
import gc, os
import psutil
from celery.signals import worker_before_create_process
from celery_app import app

def own():
    return psutil.Process().memory_full_info().uss

app.loader.import_default_modules()
worker_before_create_process.send(sender=None)
if os.fork():
    os.wait()
else:
    before = own()
    gc.collect()
    print(own() - before)
"""
    assert int(last_line_of(code)) < 5_000_000
