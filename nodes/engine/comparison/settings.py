"""The settings that are compared, from two texts as one types them.

    1, 1.05, 1.1     numbers; commas, semicolons or spaces separate
    0.9:1.2:0.05     from, to and step: 0.9, 0.95, … 1.2
    0.9…1.2 ×5       from, to and how many, evenly spaced; ... and x are the same as … and ×

Numbers are decimal and are kept so until all are known: 0.9:1.2:0.05 has the 1.05 that a user types.

One comma between two whole numbers, with neither a space nor a point near it, as in "1,05" or "1,2", can be a list or a number
of those who write a decimal comma. Guessing wrong would sample hours of something else, so it is refused; "1, 2", "1,2,3" and
"1,1.05" can only be lists. So is "05" refused, which only a decimal comma leaves.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from ..choices import ALPHA_RANGE, BETA_RANGE, check_number, check_text
from ..method.settings import CirculationSettings
from ..text import shown

MOST = 64
OFF = (1.0, 0.0)

_SPACES = re.compile(r"\s*(\.\.\.|[:…×xX])\s*")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])([+-]?\d+),(\d+)(?![\d.,])")
_NUMBER = r"([+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}))"
_SINGLE = re.compile(_NUMBER)
_STEPS = re.compile(f"{_NUMBER}:{_NUMBER}:{_NUMBER}")
_SPREAD = re.compile(rf"{_NUMBER}(?:…|\.\.\.){_NUMBER}[×xX](\d{{1,9}})")


def settings(alpha: str, beta: str, baseline: bool) -> list[tuple[float, float]]:
    """Each alpha with each beta, alpha first, none twice. All that are off are one, `OFF`, which `baseline` puts first.

    Raises ValueError that names the input, and the item of it that is wrong.
    """
    crossed = [(a, b) for a in numbers("alpha", alpha, ALPHA_RANGE) for b in numbers("beta", beta, BETA_RANGE)]
    found = [OFF if CirculationSettings(*setting).off else setting for setting in crossed]
    unique = list(dict.fromkeys([OFF, *found] if baseline else found))
    if len(unique) > MOST:
        raise ValueError(f"alpha and beta make {len(unique)} settings{', off included' * (OFF in unique)}: at most {MOST} are compared.")
    return unique


def check(alpha: str | None, beta: str | None, baseline: bool) -> bool | str:
    """True, or what is wrong with the texts; None is one that is not known yet."""
    try:
        if alpha is not None and beta is not None:
            settings(alpha, beta, baseline)
        elif alpha is not None:
            numbers("alpha", alpha, ALPHA_RANGE)
        elif beta is not None:
            numbers("beta", beta, BETA_RANGE)
    except ValueError as error:
        return str(error)
    return True


def numbers(name: str, text: str, limits: tuple[float, float]) -> list[float]:
    """The numbers of a text in its order. Raises ValueError that names the input and the item."""
    check_text(name, text)
    text = _SPACES.sub(r"\1", text.replace("\N{MINUS SIGN}", "-"))
    if comma := _DECIMAL_COMMA.search(text):
        whole, rest = comma.groups()
        raise ValueError(
            f"{name}: '{shown(comma[0])}' has a comma between digits. Write {shown(f'{whole}.{rest}')} with a point if it is one number, "
            f"'{shown(f'{whole}, {rest}')}' with a space if it is two."
        )
    found: list[float] = []
    for item in filter(None, re.split(r"[,;\uff0c\u3001\uff1b\s]+", text)):
        for value in map(float, _item(name, item)):
            check_number(f"{name}: '{shown(item)}'", value, *limits)
            found.append(value)
        if len(found) > MOST:
            raise ValueError(f"{name} has more than {MOST} numbers: at most {MOST} are compared.")
    if not found:
        raise ValueError(f"{name} is empty: write numbers such as 1, 1.05, 1.1, or a range such as 0.9:1.2:0.05.")
    return found


def _item(name: str, item: str) -> Iterator[Decimal]:
    if match := _SINGLE.fullmatch(item):
        yield _number(name, item, match[1])
    elif match := _STEPS.fullmatch(item):
        first, last, step = (_number(name, item, part) for part in match.groups())
        if step == 0 or (last - first) / step < 0:
            raise ValueError(f"{name}: '{shown(item)}' never gets from {first} to {last} in steps of {step}.")
        count = int((last - first) / step) + 1
        yield from (first + step * n for n in range(_few(name, item, count)))
    elif match := _SPREAD.fullmatch(item):
        first, last, count = _number(name, item, match[1]), _number(name, item, match[2]), int(match[3])
        if count < 2:
            raise ValueError(f"{name}: '{shown(item)}' asks for {count} numbers: a range has 2 or more.")
        # rounded, so that a label is what was done and can be typed into Circulation
        yield from (round(first + (last - first) * n / (count - 1), 4) for n in range(_few(name, item, count)))
    else:
        raise ValueError(f"{name}: '{shown(item)}' is not a number: write numbers, as 1.05, or ranges, as 0.9:1.2:0.05 or 0.9...1.2 x5.")


def _number(name: str, item: str, text: str) -> Decimal:
    if re.match(r"[+-]?0\d", text):
        raise ValueError(f"{name}: '{shown(item)}' begins with a zero: numbers have a decimal point, as in 1.05, not a comma.")
    return Decimal(text)


def _few(name: str, item: str, count: int) -> int:
    if count > MOST:
        raise ValueError(f"{name}: '{shown(item)}' are {count} numbers: at most {MOST} are compared.")
    return count
