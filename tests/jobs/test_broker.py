"""Redis goes away at the wrong moment."""

from __future__ import annotations

import pytest
from celery import current_app


@pytest.mark.usefixtures("servers")
def test_a_message_of_a_closed_connection_counts_as_a_lost_connection():
    """A worker takes up its work again after a lost connection, but ends at any other error."""
    connection = current_app.connection_for_read()
    channel = connection.default_channel
    lost = connection.connection_errors
    connection.close()
    with pytest.raises(lost):
        channel.basic_ack("a message that came over it")  # type: ignore[attr-defined]
