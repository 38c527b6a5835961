"""The measures as text: a Markdown table to read, and all values as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from ..text import printable
from .change import VISIBLE
from .diversity import FEWEST, FEWEST_VENDI, Estimate
from .measure import Setting


def to_markdown(settings: Sequence[Setting]) -> str:
    """A table with a row for each setting, and what its columns mean."""
    scored = any(setting.scores for setting in settings)
    stability = list(dict.fromkeys(name for setting in settings for name in setting.stability))
    space = settings[0].space
    names = ["setting", "images", "changed visibly", "mean change", f"mean distance, {space}", f"Vendi score, {space}"]
    names += ["score"] * scored + stability
    lines = [_row(names), _row(["---"] + ["---:"] * (len(names) - 1))]
    for place, setting in enumerate(settings):
        diversity = setting.diversity
        cells = [
            _cell(setting.label) + (" (baseline)" if place == 0 else ""),
            str(setting.images),
            _visible(setting),
            "" if setting.mean_change is None else _percent(setting.mean_change, 1),
            _estimate(diversity.distance, 4) if diversity else "",
            _estimate(diversity.vendi, 2) if diversity else "",
        ]
        cells += ["" if setting.score is None else f"{setting.score:.4g}"] * scored
        cells += [f"{setting.stability[name]:.4g}" if name in setting.stability else "" for name in stability]
        lines.append(_row(cells))
    return "\n".join((*lines, "", *_notes(settings, scored)))


def to_csv(settings: Sequence[Setting]) -> str:
    """A line for each value: of an image where it says which, else of the setting."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "label", "image", "measure", "value", "low", "high"])
    for number, setting in enumerate(settings, 1):
        for image, measure, value, interval in _values(setting):
            writer.writerow([number, setting.label, image, measure, f"{value:.6g}", *(f"{end:.6g}" for end in interval or ())])
    return text.getvalue()


def note(setting: Setting) -> str:
    """The change in two short lines, for the sheet."""
    if setting.visible is None or setting.mean_change is None:
        return ""
    return f"changed {_percent(setting.mean_change, 1)}\n{_of(setting)} visibly"


def _values(setting: Setting) -> Iterator[tuple[int | str, str, float, tuple[float, float] | None]]:
    for image, change in enumerate(setting.changes, 1):
        if change is not None:
            yield image, "change", change, None
    if len(setting.scores) > 1:
        for image, score in enumerate(setting.scores, 1):
            yield image, "score", score, None
    if setting.visible is not None and setting.mean_change is not None:
        yield "", "share changed visibly", setting.visible.value, setting.visible.interval
        yield "", "mean change", setting.mean_change, None
    if setting.diversity is not None:
        for name, estimate in (("mean distance", setting.diversity.distance), ("Vendi score", setting.diversity.vendi)):
            yield "", f"{name}, {setting.space}", estimate.value, estimate.interval
    if setting.score is not None:
        yield "", "mean score" if len(setting.scores) > 1 else "score", setting.score, None
    for name, value in setting.stability.items():
        yield "", f"stability: {name}", value, None


def _notes(settings: Sequence[Setting], scored: bool) -> Iterator[str]:
    yield (
        f"Changed visibly: images that differ from the first setting's by more than {_percent(VISIBLE)} of a pixel's range, "
        "root mean square. Distance and Vendi score: how different the images of one setting are from each other."
    )
    fewest = min(setting.images for setting in settings)
    if fewest < FEWEST:
        yield f"No intervals for fewer than {FEWEST} images. More images show more."
    else:
        yield (
            "In brackets: 95 % intervals, for images of independent seeds (not frames of a video)."
            + (f" The Vendi score has one from {FEWEST_VENDI} images on." if fewest < FEWEST_VENDI else "")
        )
    if any(len(setting.compared) < setting.images for setting in settings[1:]):
        yield "An image whose place the first setting does not have, or in another size, is not compared."
    yield "Different is not better: none of these numbers says how good an image is" + (", but for the scores you gave." if scored else ".")


def _visible(setting: Setting) -> str:
    if setting.visible is None:
        return ""
    interval = setting.visible.interval
    return _of(setting) + (f" ({100 * interval[0]:.0f} to {_percent(interval[1])})" if interval else "")


def _of(setting: Setting) -> str:
    return f"{round((setting.visible.value if setting.visible else 0) * len(setting.compared))} of {len(setting.compared)}"


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _estimate(estimate: Estimate, digits: int) -> str:
    text = f"{estimate.value:.{digits}f}"
    return text + (" ({:.{d}f} to {:.{d}f})".format(*estimate.interval, d=digits) if estimate.interval else "")


def _cell(text: str) -> str:
    return printable(" ".join(text.split())).replace("\\", "\\\\").replace("|", "\\|")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
