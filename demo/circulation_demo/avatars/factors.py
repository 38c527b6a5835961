"""What an avatar is made of: the factors that its picture and its prompt have in common, and the words for them.

A prompt names values in any order, `long teal hair, dark glasses, smiling`; what it leaves out is left open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NONE = "none"


@dataclass(frozen=True)
class Factor:
    """`values` maps each word to the option that draws it; `noun` is the word it stands with, if any."""

    name: str
    noun: str
    values: dict[str, str]
    default: str | None = None  # the value of the noun alone

    @property
    def words(self) -> list[str]:
        return list(self.values)

    def phrase(self, value: str) -> str:
        return self.noun if value == self.default else f"{value} {self.noun}".strip()


COLOURS = {
    "background": {
        "white": "ffffff", "pink": "ffb6c9", "yellow": "ffe38a", "green": "b9e3a5", "blue": "a9d4f5", "purple": "cdb4f0", "grey": "b5b5b5",
    },
    "skin": {"light": "ffdbac", "tan": "e0b687", "brown": "b68655", "dark": "8d5524"},
    "hair": {"blond": "cab188", "brown": "83623b", "black": "28150a", "red": "bd1700", "teal": "009bbd", "green": "91cb15"},
    "clothes": {"blue": "5bc0de", "navy": "03396c", "green": "00b159", "red": "d11141", "cream": "ffeead", "yellow": "ffc425"},
}
FACTORS = (
    Factor("background", "background", COLOURS["background"]),
    Factor("skin", "skin", COLOURS["skin"]),
    Factor("hair length", "hair", {"short": "short", "long": "long"}),
    Factor("hair colour", "hair", COLOURS["hair"]),
    Factor("glasses", "glasses", {"no": NONE, "clear": "light", "dark": "dark"}, default="clear"),
    Factor("beard", "beard", {"no": NONE, "full": "variant"}, default="full"),
    Factor("hat", "hat", {"no": NONE, "any": "variant"}, default="any"),
    Factor("mouth", "", {"smiling": "happy", "frowning": "sad"}),
    Factor("clothes", "clothes", COLOURS["clothes"]),
)
FILLERS = {"a", "an", "the", "person", "face", "avatar", "portrait", "of"}
BETWEEN_PHRASES = r"[,;.]|\b(?:and|with|wearing|in|on)\b"


def caption(values: dict[str, str]) -> str:
    """The prompt that names these values, factor name → word."""
    phrases: dict[str, str] = {}
    for factor in FACTORS:
        if factor.name in values:
            key = factor.noun or factor.name
            before = phrases[key].removesuffix(factor.noun) if key in phrases else ""
            phrases[key] = before + factor.phrase(values[factor.name])
    return ", ".join(phrases.values())


def parse(prompt: str) -> tuple[dict[str, str], list[str]]:
    """(factor name → word, words that mean nothing here) of a prompt."""
    values, unknown = {}, []
    for phrase in re.split(BETWEEN_PHRASES, prompt.lower()):
        words = [word for word in re.findall(r"[a-z]+", phrase) if word not in FILLERS]
        nouns = [factor for factor in FACTORS if factor.noun in words]
        candidates = nouns or [factor for factor in FACTORS if not factor.noun]
        for factor in nouns:
            if factor.default:
                values[factor.name] = factor.default
        for word in words:
            meant = [factor for factor in candidates if word in factor.values]
            values.update((factor.name, word) for factor in meant)
            if not meant and all(word != factor.noun for factor in nouns):
                unknown.append(word)
    return values, unknown


def codes(values: dict[str, str]) -> list[int]:
    """One number for each factor: 0 where it is left open, else 1 + the position of its value."""
    return [1 + factor.words.index(values[factor.name]) if factor.name in values else 0 for factor in FACTORS]


def vocabulary() -> str:
    """All that a prompt can say, for people."""
    return "; ".join(", ".join(factor.phrase(word) for word in factor.words) for factor in FACTORS)
