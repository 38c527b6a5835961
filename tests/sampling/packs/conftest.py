import logging

import pytest
from support.host import engine


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "circulation")
    return caplog


@pytest.fixture
def statuses(monkeypatch):
    """The line that each node gets, by its id."""
    events, sent = engine("comfy.events"), {}
    monkeypatch.setattr(events, "send", lambda event, node, data: sent.update({node: data["text"]} if event == events.STATUS else {}))
    return sent
