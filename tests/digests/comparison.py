"""Digests in a file, and what differs between two sets of them. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path


def write(path: Path, setting: dict, digests: dict[str, str]) -> None:
    path.write_text(json.dumps({"setting": setting, "digests": digests}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path, setting: dict) -> dict[str, str]:
    """The digests of a file. Raises ValueError where they come from another setting: bits depend on the machine, torch and ComfyUI."""
    file = json.loads(path.read_text(encoding="utf-8"))
    written = file["setting"]
    differing = [key for key in {**written, **setting} if written.get(key) != setting.get(key)]
    if differing:
        words = "; ".join(f"{key} was {written.get(key)}, is {setting.get(key)}" for key in differing)
        raise ValueError(f"{path} was written elsewhere and cannot be compared: {words}. Write it here, with the older code.")
    return file["digests"]


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A line for each name of before that differs after or is missing there. What is new has nothing to be compared with."""
    return [f"{'differs' if name in after else 'missing'}: {name}" for name, digest in before.items() if after.get(name) != digest]
