"""The workflows that come with the pack, and the ComfyUI that each needs."""

import json
import os
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "workflows").glob("*.json"))
COMFYUI = Version(Path(os.environ["COMFYUI_PATH"], "comfyui_version.py").read_text().split('"')[1])
OLDEST = Version("0.3.75")


def workflow(name: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text("utf-8"))


def needs(workflow: dict) -> Version:
    """The ComfyUI that has all of its nodes: the newest that one of them names."""
    return max(Version(node["properties"]["ver"]) for node in workflow["nodes"] if node["properties"].get("cnr_id") == "comfy-core")


def can_be_opened(name: str) -> bool:
    return needs(workflow(name)) <= COMFYUI


ALL = [
    pytest.param(path, id=path.stem, marks=pytest.mark.skipif(not can_be_opened(path.stem), reason="It needs a newer ComfyUI."))
    for path in PATHS
]  # fmt: skip
