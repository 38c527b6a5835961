import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import host  # noqa: F401  ComfyUI first: it sets up torch for everything after it

import comfy.model_management
from support.executor import executor  # noqa: F401


@pytest.fixture(autouse=True)
def unloaded_models():
    yield
    comfy.model_management.unload_all_models()
