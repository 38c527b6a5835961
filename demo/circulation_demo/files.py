"""Files that are written whole or not at all, so that what is there can be relied upon after an interruption."""

from collections.abc import Callable
from pathlib import Path


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write` is given another place, from which the file is then moved to `path`."""
    part = path.with_suffix(".part")
    write(part)
    part.replace(path)
