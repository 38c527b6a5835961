import logging

import pytest


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "circulation")
    return caplog
