"""Text that leaves the pack: for the log, for messages and for figures, whatever it holds."""

import sys
import textwrap
from collections.abc import Collection
from difflib import get_close_matches


def ascii_line(text: str) -> str:
    """One line of ASCII, for the log: what takes the log may not be able to write anything else."""
    return _escaped(text.replace("\N{MULTIPLICATION SIGN}", "x"), lambda c: c.isascii() and c.isprintable())


def shown(value: object, limit: int = 80) -> str:
    """A value that a message repeats: cut, printable, and in characters that this console has."""
    try:
        text = str(value)
    except Exception:  # of an integer with too many digits, or of a class of another pack
        text = f"something of type {type(value).__name__}"
    text = printable(text if len(text) <= limit else f"{text[:limit]}...")
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def got(value: object) -> str:
    """What an input got, as a message says it: with its type where that may be what is wrong."""
    if isinstance(value, str):
        return f"'{shown(value)}'"
    if isinstance(value, float):
        return f"{value:g}"
    return shown(value) if type(value) is int else f"{shown(value)} ({type(value).__name__})"


def meant(word: str, words: Collection[str]) -> str:
    """A question about the one of some words that a mistyped one is nearest to; nothing where none is near."""
    near = get_close_matches(word, words, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def printable(text: str) -> str:
    """The text with control characters, lone surrogates and the like as escapes."""
    return _escaped(text, str.isprintable)


def wrapped(text: str, width: int = 80, lines: int = 2) -> str:
    """For a figure: as it is written, in lines of a width, cut after so many."""
    first, rest = (parts := textwrap.wrap(printable(text[: width * lines + 1]), width, drop_whitespace=False))[:lines], parts[lines:]
    return "\n".join(first) + (" ..." if rest else "")


def _escaped(text: str, keep) -> str:
    return "".join(c if keep(c) else c.encode("unicode_escape").decode() for c in text)
