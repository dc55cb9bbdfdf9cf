"""The four floors: imports go down only, and light processes stay light."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from tests.processes import last_line_of

FLOORS = ["scribes", "jobs", "notes", "reminders"]


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("floor", FLOORS)
def test_no_floor_imports_from_above(floor: str):
    above = FLOORS[FLOORS.index(floor) + 1 :]
    files = [f for f in (settings.BASE_DIR / floor).rglob("*.py") if "migrations" not in f.parts]
    assert files
    for file in files:
        assert not [name for name in imports(file) if name.split(".")[0] in above], file


@pytest.mark.usefixtures("servers")
def test_what_embeds_nothing_loads_no_model_library():
    """`manage.py check`, web, beat, Flower and an idle worker: all that they import, in one process.
    pythonbible is quick to use and slow to import."""
    code = """
import sys
from celery_app import app
app.loader.import_default_modules()
assert "jobs.tasks.run_batch" in app.tasks
import celery.bin.celery, flower.command, flowerconfig, scribes.beat, scribes.wsgi
from django.core import checks
assert not checks.run_checks()
slow = {"torch", "transformers", "sentence_transformers", "openvino", "pythonbible"}
print(sorted(slow & set(sys.modules)))
"""
    assert last_line_of(code) == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is shared")
@pytest.mark.usefixtures("servers")
def test_a_process_of_the_pool_goes_on_sharing_what_was_imported():
    """Also once its garbage collector has looked at everything: that alone would be 49 MB."""
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
