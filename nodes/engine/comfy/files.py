"""ComfyUI's input and output folders, and no file outside them."""

import os
from pathlib import Path

import folder_paths


def existing_file(file: str) -> str:
    """The path of a file in the input or else the output folder. Raises ValueError if it is in neither."""
    for folder in (folder_paths.get_input_directory(), folder_paths.get_output_directory()):
        path = os.path.join(folder, file)
        if _is_inside(file, folder) and os.path.isfile(path):
            return path
    raise ValueError(f"There is no file '{file}' in the input or the output folder.")


def next_file(filename_prefix: str, suffix: str) -> tuple[str, str]:
    """The path of a new file in the output folder, numbered as Save Image does it, and what to call it: relative to that folder.

    Raises ValueError if the prefix leads out of the folder.
    """
    output = folder_paths.get_output_directory()
    if not _is_inside(filename_prefix, output):
        raise ValueError(f"filename_prefix '{filename_prefix}' leads out of the output folder.")
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, output)
    file = f"{name}_{counter:05}_{suffix}"
    return os.path.join(folder, file), os.path.join(subfolder, file)


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path that starts at a folder stays in it, also where links lead."""
    return Path(folder, path).resolve().is_relative_to(Path(folder).resolve())
