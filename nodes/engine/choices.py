"""What a user can choose: the words and the ranges of the nodes' inputs. Saved workflows hold them as they are here."""

from numbers import Integral, Real

from .text import got

# How a token gets back its length after the blend
VALUE_SPACE = "value space"
INPUT_SPACE = "input space (paper)"
NO_RESCALE = "off"
RESCALES = (VALUE_SPACE, INPUT_SPACE, NO_RESCALE)

# How the blend is reached: from two retrievals, or by one
PAPER = "paper"
ONE_PASS = "one pass"
METHODS = (PAPER, ONE_PASS)

# Which tokens are circulated or measured, where image and text share an attention
IMAGE_TOKENS = "image"
ALL_TOKENS = "all"
TOKENS = (IMAGE_TOKENS, ALL_TOKENS)

# How the symmetry index η sets alpha
DEVIATION = "deviation"
SCALE = "scale"
FORMULAS = (DEVIATION, SCALE)

# What one η is averaged over
IMAGE = "image"
HEAD = "head"
BATCH = "batch"
ETA_OVER = (IMAGE, HEAD, BATCH)

# Which half of the model's batch
BOTH = "both"
POSITIVE = "positive"
NEGATIVE = "negative"
BRANCHES = (BOTH, POSITIVE, NEGATIVE)
UNKNOWN = "unknown"  # of rows that another node hands to the model without a word

MEASURES = ("energy", "instability", "alignment", "eta", "skew ratio")

# Colours of a figure
LIGHT, DARK = "light", "dark"
THEMES = (LIGHT, DARK)

ALPHA_RANGE = (-1.0, 3.0)
BETA_RANGE = (0.0, 10.0)


def check_word(name: str, word: object, words: tuple[str, ...]) -> None:
    """Raise ValueError that names the input if its word is none of `words`."""
    if word not in words:
        raise ValueError(f"{name} is {got(word)} and must be one of: {', '.join(words)}.")


def check_text(name: str, text: object) -> None:
    """Raise ValueError that names the input if it is no text."""
    if not isinstance(text, str):
        raise ValueError(f"{name} is {got(text)} and must be text.")


def check_number(name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    """Raise ValueError that names the input if it is no number, outside of low to high, or NaN; or not whole where it must be."""
    wanted, words = (Integral, "a whole number ") if whole else (Real, "a number ")
    if not isinstance(value, wanted):
        raise ValueError(f"{name} is {got(value)} and must be {words}between {low:g} and {high:g}.")
    if not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} is {got(value)} and must be between {low:g} and {high:g}.")
