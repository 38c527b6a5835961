"""The short forms of `python3 -m tests.soak` and `python3 -m tests.fuzz`."""

import pytest
from fuzz.command import fuzz
from soak.command import server_with_mishaps, soak


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("mishaps") / "base"


@pytest.fixture(scope="module")
def server(base):
    with server_with_mishaps(base) as server:
        yield server


def test_hostile_inputs_and_damaged_records_are_refused_in_words(server, base):
    came = fuzz(server, base, inputs=60, records=20, seed=1)
    assert came["ran"] > 0 and came["refused at the node"] > 0


def test_runs_that_end_badly_leave_nothing_behind(server):
    _, happened, _, _ = soak(server, runs=10, minutes=10, seed=1)
    assert len(happened) > 3
