"""What is measured of each setting, the first of which is the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..choices import MEASURES
from ..records.record import Record
from ..text import got
from .change import VISIBLE, changes, picture, small
from .diversity import Diversity, Estimate, in_embeddings, in_pixels, share

PIXELS, CLIP = "pixels", "CLIP vision"
TOGETHER = 8  # images in one call of the vision model
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """One setting and its measures, which are None where there is nothing to measure."""

    label: str
    images: int
    changes: tuple[float | None, ...]  # of each image, against the baseline's; none for the baseline
    diversity: Diversity | None
    space: str  # that the diversity is measured in
    scores: tuple[float, ...] = ()  # of the setting, or of each of its images
    stability: Mapping[str, float] = field(default_factory=dict)  # means over a run

    @property
    def compared(self) -> list[float]:
        return [value for value in self.changes if value is not None]

    @property
    def visible(self) -> Estimate | None:
        """The share of images that changed visibly."""
        return share(sum(value > VISIBLE for value in self.compared), len(self.compared)) if self.compared else None

    @property
    def mean_change(self) -> float | None:
        return _mean(self.compared)

    @property
    def score(self) -> float | None:
        return _mean(self.scores)


def labels_of(labels: Sequence[object], count: int) -> list[str]:
    """One label for each of `count` settings, from a list or from the lines of one text. Raises ValueError."""
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels has {got(next(label for label in labels if not isinstance(label, str)))} in it and must be text.")
    texts = [str(label) for label in labels]
    if len(texts) == 1 and count != 1:
        texts = texts[0].strip().splitlines() or [""] * count
    if len(texts) != count:
        raise ValueError(_unequal("labels", f"{len(texts)}", count))
    return [text.strip() or f"setting {number}" for number, text in enumerate(texts, 1)]


def batches_of(images: Sequence[object]) -> list[Tensor]:
    """Raises ValueError where there is no batch, and names the first that is none."""
    if not images:
        raise ValueError("images is an empty list and must be batches of images.")
    for number, batch in enumerate(images, 1):
        if not isinstance(batch, Tensor) or batch.ndim != 4 or 0 in batch.shape:
            what = f"of shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else got(batch)
            raise ValueError(f"Batch {number} of images is {what} and must be images: (number, height, width, channels).")
    return list(images)


def scores_of(scores: Sequence[object], batches: Sequence[Tensor]) -> list[tuple[float, ...]]:
    """The scores of each setting: one of it, or one of each of its images. Raises ValueError."""
    flat = [value for entry in scores for value in (entry if isinstance(entry, (list, tuple)) else (entry,))]
    values = [_number(value) for value in flat]
    total = sum(map(len, batches))
    if len(values) == len(batches):
        return [(value,) for value in values]
    if len(values) == total:
        ends = torch.tensor([len(batch) for batch in batches]).cumsum(0).tolist()
        return [tuple(values[end - len(batch) : end]) for end, batch in zip(ends, batches)]
    raise ValueError(_unequal("scores", f"{len(values)}", len(batches), f", or {total}, one of each image"))


def stability_of(records: Sequence[Record], count: int) -> list[dict[str, float]]:
    """Each measure's mean over the last run of each record. Raises ValueError."""
    if len(records) != count:
        raise ValueError(_unequal("stability", f"{len(records)}", count))
    means = [record.runs[-1].values.double().flatten(1).nanmean(dim=1).tolist() for record in records]
    return [{name: value for name, value in zip(MEASURES, values) if math.isfinite(value)} for values in means]


def measured(
    batches: Sequence[Tensor],
    labels: Sequence[str],
    scores: Sequence[tuple[float, ...]] | None = None,
    stability: Sequence[Mapping[str, float]] | None = None,
    embed: Embed | None = None,
) -> list[Setting]:
    """The settings, from batches (number, height, width, channels); `embed` makes (n, d) of (n, height, width, 3)."""
    settings = []
    changed = _changed(batches)
    for place, (batch, label) in enumerate(zip(batches, labels)):
        diversity = None
        if len(batch) > 1 and embed:
            diversity = in_embeddings(_embedded(batch, embed))
        elif len(batch) > 1:
            diversity = in_pixels(torch.stack([small(image) for image in batch]))
        rest = scores[place] if scores else (), stability[place] if stability else {}
        settings.append(Setting(label, len(batch), changed[place], diversity, CLIP if embed else PIXELS, *rest))
    return settings


def by_change(settings: Sequence[Setting]) -> list[int]:
    """The places of images in their batches, those first that change most on average over the settings."""
    count = max(setting.images for setting in settings)

    def mean(place: int) -> float:
        values = [s.changes[place] for s in settings if place < len(s.changes) and s.changes[place] is not None]
        return round(sum(values) / len(values), 6) if values else -1.0  # type: ignore[arg-type]  # rounding is no order

    return sorted(range(count), key=mean, reverse=True)


def _changed(batches: Sequence[Tensor]) -> list[tuple[float | None, ...]]:
    """Of each setting but the first, which is the baseline."""
    found: list[list[float | None]] = [[] for _ in batches]
    for place, baseline in enumerate(batches[0]):
        having = [setting for setting, batch in enumerate(batches) if setting and place < len(batch)]
        for setting, value in zip(having, changes([batches[setting][place] for setting in having], baseline)):
            found[setting].append(value)
    return [tuple(values) for values in found]


def _embedded(batch: Tensor, embed: Embed) -> Tensor:
    parts = [embed(torch.stack([picture(image) for image in part])) for part in batch.split(TOGETHER)]
    embeddings = torch.cat([part.detach().float().cpu() for part in parts])
    if not embeddings.isfinite().all():
        raise ValueError("The CLIP vision model gives numbers that are not finite for these images. Try another, or connect none.")
    return embeddings


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"scores has {got(value)} in it and must be numbers.")
    return number


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _unequal(name: str, found: str, batches: int, otherwise: str = "") -> str:
    return f"images has {batches} batches and {name} has {found} entries; there must be one of {name} for each batch{otherwise}."
