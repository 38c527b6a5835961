"""With what results were made, in a file beside them."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from .. import ROOT

CPU_INFO = Path("/proc/cpuinfo")  # on Linux, where `platform` does not know the processor's name


def provenance(conditions: dict) -> dict:
    """Commit, versions, machine and date, beside the conditions of the images (`sampling.conditions`). What is not known is None."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "pack": re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[0],
        "python": platform.python_version(),
        "cpu": cpu(),
        **conditions,
    }


def write(results: Path, made_with: dict, name: str = "provenance.json") -> None:
    (results / name).write_text(json.dumps(made_with, indent=2) + "\n", encoding="utf-8")


def commit() -> str | None:
    """The commit of the pack, with "-dirty" where files differ from it. None where it did not come by git."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu() -> str | None:
    names = re.findall(r"^model name\s*: (.+)$", CPU_INFO.read_text(), re.MULTILINE) if CPU_INFO.exists() else []
    return names[0] if names else platform.processor() or None
