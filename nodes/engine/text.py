"""Text that leaves the pack: for a console of any encoding, and echoed input in short."""


def ascii_line(text: str) -> str:
    """A line for the log: ComfyUI's console may have any encoding."""
    return text.replace("×", "x").encode("ascii", "backslashreplace").decode()
