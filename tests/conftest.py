import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import host  # noqa: F401  ComfyUI first: it sets up torch for everything after it

import comfy.model_management
from support import front_ends
from support.executor import executor  # noqa: F401
from xdist.scheduler import LoadScopeScheduling


def pytest_addoption(parser):
    parser.addoption("--every-front-end", action="store_true", help="each test of a page in all combinations of front end and renderer")


class ByServer(LoadScopeScheduling):
    """What one worker runs in a row: a file, or all that is tried in one front end, which has one server."""

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        return next((version for version in front_ends.VERSIONS if version in test), file)


def pytest_xdist_make_scheduler(config, log):
    return ByServer(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(autouse=True)
def unloaded_models():
    yield
    comfy.model_management.unload_all_models()
