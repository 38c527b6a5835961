"""ComfyUI's input and output folders, and no file outside them."""

import hashlib
import os

import folder_paths

from ..choices import check_text
from ..text import shown


def existing_file(file: str) -> str:
    """The path of a file in the input or else the output folder. Raises ValueError if it is in neither."""
    check_text("file", file)
    for folder in (folder_paths.get_input_directory(), folder_paths.get_output_directory()):
        path = os.path.join(folder, file)
        if _is_named_inside(path, folder) and os.path.isfile(path):
            if not _is_inside(file, folder):
                raise ValueError(f"The file '{shown(file)}' lies behind a link that leads out of the folder. This ComfyUI follows none.")
            return path
    raise ValueError(f"There is no file '{shown(file)}' in the input or the output folder.")


def state_of(path: str) -> str:
    """A digest that changes when a file does, without reading it."""
    status = os.stat(path)
    return hashlib.sha256(repr((path, status.st_size, status.st_mtime_ns)).encode()).hexdigest()


def next_file(filename_prefix: str, suffix: str) -> tuple[str, str]:
    """The path of a new file in the output folder, numbered as Save Image does it, and what to call it: relative to that folder.

    Raises ValueError if the prefix leads out of the folder, or cannot be a name there.
    """
    check_text("filename_prefix", filename_prefix)
    output = folder_paths.get_output_directory()
    if not _is_inside(filename_prefix, output):
        raise ValueError(f"filename_prefix '{shown(filename_prefix)}' leads out of the output folder, or is no possible name.")
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, output)
    except OSError as error:  # too long, or without permission
        raise ValueError(f"filename_prefix '{shown(filename_prefix)}' cannot be used: {shown(error)}") from error
    file = f"{name}_{counter:05}_{suffix}"
    return os.path.join(folder, file), os.path.join(subfolder, file)


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path that starts at a folder stays in it, as this ComfyUI decides: newer ones also ask where links in it lead."""
    path = os.path.join(folder, path)
    decide = getattr(folder_paths, "is_within_directory", None)
    return decide(folder, path) if decide is not None else _is_named_inside(path, folder)


def _is_named_inside(path: str, folder: str) -> bool:
    folder = os.path.abspath(folder)
    try:
        return os.path.commonpath((folder, os.path.abspath(path))) == folder
    except ValueError:  # another drive
        return False
