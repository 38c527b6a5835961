import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import host  # noqa: F401  ComfyUI first: it sets up torch for everything after it

<<<<<<< HEAD
import comfy.model_management
=======
import comfy.model_management  # noqa: E402
from support.executor import executor  # noqa: E402, F401
>>>>>>> f1dd6f4002562b134237e1cc54058b2e4f3ac048


@pytest.fixture(autouse=True)
def unloaded_models():
    yield
    comfy.model_management.unload_all_models()
