"""Pictures in ComfyUI's temporary folder, for the browser."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping

import folder_paths
from comfy.cli_args import args
from comfy.model_management import throw_exception_if_processing_interrupted
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def preview(pictures: Iterable[Image.Image | None], hidden=None) -> list[dict[str, str] | None]:
    """Write PNGs as Preview Image does and say where; with the graph in them where a node's hidden inputs are given."""
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    name = f"ComfyUI_temp_circulation_{secrets.token_hex(6)}"
    written: list[dict[str, str] | None] = []
    for number, picture in enumerate(pictures, 1):
        throw_exception_if_processing_interrupted()
        if picture is None:
            written.append(None)
            continue
        file = f"{name}_{number:05}_.png"
        picture.save(os.path.join(folder, file), pnginfo=_graph(hidden), compress_level=1)
        written.append({"filename": file, "subfolder": "", "type": "temp"})
    return written


def _graph(hidden) -> PngInfo | None:
    if hidden is None or args.disable_metadata:
        return None
    info = PngInfo()
    extra: Mapping = hidden.extra_pnginfo or {}
    for name, value in {"prompt": hidden.prompt, **extra}.items():
        if value:
            info.add_text(name, json.dumps(value))
    return info
