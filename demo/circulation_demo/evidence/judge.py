"""What is measured of each image by itself, and in which spaces sets of images are compared."""

from __future__ import annotations

from functools import cached_property

import numpy
import torch
from numpy import ndarray as Array

from . import classifier, metrics
from .data import MODEL, REAL, STYLES, Avatars, avatars, factor_names
from .plan import COMPONENTS, NEIGHBOURS, PER_PROMPT

SPACES = ("classifier", "pixels")
IMAGE_CHANGE = "image change"
REALISM = {space: f"realism, {space}" for space in SPACES}  # of an image; the mean over a set is its density


class Judge:
    """The reference, in each feature space as `metrics.Components` of held-out real images, and the classifier that reads images."""

    def __init__(self):
        self.reader = classifier.load(MODEL / "classifier.safetensors")
        real, train = avatars("held_out")[REAL], avatars("train")
        self.components, self.real, self.train = {}, {}, {}
        for space in SPACES:
            features = self.features(space, real.images)
            self.components[space] = metrics.Components(features, COMPONENTS)
            self.real[space] = metrics.Manifold(self.components[space](features), NEIGHBOURS)
            self.train[space] = self.components[space](self.features(space, train.images))
        colours = train.images.reshape(-1, 3)
        self.palette = numpy.unique(colours, axis=0)

    def features(self, space: str, images: Array) -> Array:
        """(N, D) of images (N, 16, 16, 3) uint8."""
        if space == "pixels":
            return images.reshape(len(images), -1) / 255
        return self.reader.read(torch.from_numpy(images))[0].double().numpy()

    def points(self, space: str, images: Array) -> Array:
        """(N, COMPONENTS) of images (N, 16, 16, 3) uint8."""
        return self.components[space](self.features(space, images))


class Row:
    """Images of one setting, or of a control. Images of one prompt stand side by side."""

    def __init__(
        self, judge: Judge, name: str, images: Array, factors: Array | None = None, plain: Array | None = None, per_prompt: int = PER_PROMPT
    ):
        """`images` (N, 16, 16, 3) uint8. `factors` (prompts, 9) is what was asked for, `plain` the baseline's images, (N, 16, 16, 3)."""
        self.judge, self.name, self.images, self.factors, self.plain, self.per_prompt = judge, name, images, factors, plain, per_prompt

    def first(self, images: int) -> Row:
        factors = None if self.factors is None else self.factors[: images // self.per_prompt]
        plain = None if self.plain is None else self.plain[:images]
        return Row(self.judge, self.name, self.images[:images], factors, plain, self.per_prompt)

    @cached_property
    def samples(self) -> dict[str, metrics.Sample]:
        return {space: metrics.Sample(self.judge.real[space], self.judge.points(space, self.images)) for space in SPACES}

    @cached_property
    def of_images(self) -> dict[str, Array]:
        """Measures of each image, (N,) each."""
        probabilities = self.judge.reader.read(torch.from_numpy(self.images))[1]
        sure = torch.stack([probabilities[head].max(dim=-1).values for head in (*factor_names(), *STYLES)])
        values = {
            "mixture index": (1 - sure).mean(dim=0).numpy(),
            "palette validity": metrics.palette_validity(self.images, self.judge.palette),
        }
        if self.factors is not None:
            asked = numpy.repeat(self.factors, self.per_prompt, axis=0)
            read = numpy.stack([probabilities[name].argmax(dim=-1).numpy() for name in factor_names()], axis=1)
            values["prompt recognised"] = (read == asked).mean(axis=1)
        for space, sample in self.samples.items():
            values[REALISM[space]] = sample.inside.sum(axis=0) / NEIGHBOURS
            values[f"train distance, {space}"] = metrics.nearest(sample.points, self.judge.train[space])
            if self.per_prompt > 1:
                values[f"spread, {space}"] = metrics.spread(sample.points, self.per_prompt)
        if self.plain is not None:
            values[IMAGE_CHANGE] = metrics.image_change(self.images, self.plain)
            values["colour change"] = numpy.abs(metrics.histograms(self.images) - metrics.histograms(self.plain)).sum(axis=1) / 2
        return values

    def measures(self, chosen: Array | slice = slice(None)) -> dict[str, float]:
        """All measures of the chosen images: of the set, `precision, classifier`, and means of those of each image."""
        of_set = {f"{name}, {space}": value for space, sample in self.samples.items() for name, value in sample.measures(chosen).items()}
        return of_set | {name: float(values[chosen].mean()) for name, values in self.of_images.items() if name not in REALISM.values()}

    def draws(self, halves: list[Array]) -> dict[str, Array]:
        """Each measure on each half of the prompts."""
        drawn = [self.measures(half) for half in halves]
        return {name: numpy.array([d[name] for d in drawn]) for name in drawn[0]}


def controls(judge: Judge, real: Avatars, count: int) -> list[Row]:
    """Sets that a good measure must tell from `count` real images, made of held-out ones."""
    generator = numpy.random.default_rng(0)
    images = real.images[: 2 * count]
    average = (images[:count].astype(int) + images[count : 2 * count]) // 2
    noisy = images[:count] + generator.normal(0, 20, images[:count].shape)
    repeated = numpy.tile(images[: count // 8], (8, 1, 1, 1))[:count]
    sets = {
        "control: averages of two": average,
        "control: real plus noise": noisy.round().clip(0, 255),
        "control: an eighth, repeated": repeated,
    }
    return [Row(judge, name, pictures.astype(numpy.uint8), per_prompt=1) for name, pictures in sets.items()]
