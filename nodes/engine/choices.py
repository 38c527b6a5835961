"""What a user can choose: the words and the ranges of the nodes' inputs. Saved workflows hold them as they are here."""

# How a token gets back its length after the blend
VALUE_SPACE = "value space"
INPUT_SPACE = "input space (paper)"
NO_RESCALE = "off"
RESCALES = (VALUE_SPACE, INPUT_SPACE, NO_RESCALE)

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

MEASURES = ("energy", "instability", "alignment", "eta", "skew ratio")

ALPHA_RANGE = (-1.0, 3.0)
BETA_RANGE = (0.0, 10.0)


def check_word(name: str, word: str, words: tuple[str, ...]) -> None:
    """Raise ValueError that names the input if its word is none of `words`."""
    if word not in words:
        raise ValueError(f"{name} is '{word}' and must be one of: {', '.join(words)}.")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError that names the input if its number lies outside low…high, or is NaN."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value:g} and must be between {low:g} and {high:g}.")
