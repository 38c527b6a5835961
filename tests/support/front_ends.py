"""ComfyUI's front ends: the versions that the pack is tested with, from PyPI, kept in `.comfy/frontends/`."""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".comfy" / "frontends"
PACKAGE = "comfyui-frontend-package"
IN_WHEEL = "comfyui_frontend_package/static/"

OLDEST, MIDDLE, NEWEST = "1.32.9", "1.49.6", "newest"
VERSIONS = [OLDEST, MIDDLE, NEWEST]  # the first is the one that ComfyUI 0.3.75 asks for


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@cache
def newest():
    """The number of the newest version on PyPI."""
    report = pip("install", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", PACKAGE)
    return json.loads(report)["install"][0]["metadata"]["version"]


def root(version):
    """The folder of a version's files, for ComfyUI's --front-end-root."""
    number = newest() if version == NEWEST else version
    static = FOLDER / number / IN_WHEEL
    if not static.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as made:
            pip("download", "--no-deps", "--dest", made, f"{PACKAGE}=={number}")
            with zipfile.ZipFile(next(Path(made).glob("*.whl"))) as wheel:
                wheel.extractall(Path(made, "unpacked"), [n for n in wheel.namelist() if n.startswith(IN_WHEEL) and not n.endswith(".map")])
            try:
                os.replace(Path(made, "unpacked"), FOLDER / number)
            except OSError:  # another process was faster
                if not static.exists():
                    raise
    return static
