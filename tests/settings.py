"""The project's settings, with servers and queues that only this test run uses."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

# Tests that run side by side have servers of their own: pytest-xdist names the sides.
os.environ["DATA_DIR"] = str(
    Path(__file__).parent.parent.absolute() / ".data/test" / os.getenv("PYTEST_XDIST_WORKER", "")
)
# Through the environment, so that the processes which tests start share it.
os.environ["REDIS_KEY_PREFIX"] = f"scribes-test-{uuid.uuid4()}:"
os.environ["SECRET_KEY"] = "a secret of the tests, long enough for HS256"

from scribes.settings import *  # noqa: F403
from scribes.settings import DATABASES

# Most tests are one transaction, which is idle while a model is converted: minutes on a busy machine.
DATABASES["default"]["OPTIONS"]["options"] += " -c idle_in_transaction_session_timeout=0"
