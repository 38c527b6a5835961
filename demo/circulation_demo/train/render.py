"""Avatars with their factors, drawn by DiceBear's CC0 pixel-art style. Needs node and npm; nothing else of the project does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy

from ..avatars.factors import COLOURS, FACTORS, NONE
from ..digest import digest

TOOL = [Path(__file__).with_name(name) for name in ("package.json", "render.mjs")]

# Which seeds are drawn for what. The sets have none in common.
SPLITS = {"train": (0, 32_000), "held_out": (1_000_000, 8_000), "classifier": (2_000_000, 32_000)}
OPTIONS = {
    "backgroundColor": list(COLOURS["background"].values()),
    "skinColor": list(COLOURS["skin"].values()),
    "hairColor": list(COLOURS["hair"].values()),
    "clothingColor": list(COLOURS["clothes"].values()),
    "glassesProbability": 30,
    "beardProbability": 20,
    "hatProbability": 12,
    "accessoriesProbability": 0,
}
# How DiceBear calls each factor.
SOURCES = {
    "background": "primaryBackgroundColor", "skin": "skinColor", "hair length": "hair", "hair colour": "hairColor", "glasses": "glasses",
    "beard": "beard", "hat": "hat", "mouth": "mouth", "clothes": "clothingColor",
}
# Factors that no prompt names: within one prompt they are what images can differ in.
STYLES = {"hair style": "hair", "eyes": "eyes", "mouth shape": "mouth", "clothes cut": "clothing"}


def render(split: str, work: Path) -> Path:
    """A file in `work`: images (N, 16, 16, 3) uint8; factors (N, 9) and styles (N, 4) uint8, positions in FACTORS and STYLES.

    It is drawn once for the same seeds, options, words and versions of the drawing tool.
    """
    first, count = SPLITS[split]
    words = [(factor.name, factor.values) for factor in FACTORS]
    path = work / f"{split}-{digest(first, count, OPTIONS, SOURCES, STYLES, words, *TOOL)}.npz"
    if path.exists():
        return path
    tool = install(work)
    print(f"Drawing {count} avatars for {split} ...", flush=True)
    command = ["node", str(tool / "render.mjs"), str(first), str(count), str(work / split)]
    subprocess.run(command, input=json.dumps(OPTIONS), text=True, check=True)
    images = numpy.fromfile(work / f"{split}.rgb", numpy.uint8).reshape(count, 16, 16, 3)
    drawn = [json.loads(line) for line in (work / f"{split}.jsonl").read_text().splitlines()]
    factors = numpy.array([[position(factor, avatar.get(SOURCES[factor.name])) for factor in FACTORS] for avatar in drawn], numpy.uint8)
    styles = numpy.array([[style(avatar[option], name) for name, option in STYLES.items()] for avatar in drawn], numpy.uint8)
    numpy.savez_compressed(path, images=images, factors=factors, styles=styles)
    for suffix in ("rgb", "jsonl"):
        (work / f"{split}.{suffix}").unlink()
    return path


def position(factor, drawn: str | None) -> int:
    """Which value of the factor was drawn: "dark03" is "dark", "#ffffff" is white."""
    drawn = (drawn or NONE).removeprefix("#").rstrip("#")
    options = list(factor.values.values())
    return next(p for p, option in enumerate(options) if drawn == option or (drawn.startswith(option) and drawn[len(option) :].isdigit()))


def style(variant: str, name: str) -> int:
    """"long05" → 28: the number within the style, after the 24 short hairs or the 13 happy mouths where there are two kinds."""
    kind, number = variant.rstrip("0123456789"), int(variant.lstrip("abcdefghijklmnopqrstuvwxyz")) - 1
    return number + {"long": 24, "sad": 13}.get(kind, 0)


def install(work: Path) -> Path:
    """The folder of the drawing tool, with its dependencies."""
    tool = work / f"dicebear-{digest(*TOOL)}"
    tool.mkdir(parents=True, exist_ok=True)
    for file in TOOL:
        shutil.copy(file, tool)
    if not (tool / "node_modules").exists():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=tool, check=True, shell=sys.platform == "win32")
    return tool
