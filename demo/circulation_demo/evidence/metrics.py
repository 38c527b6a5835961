"""Fidelity and diversity of a set of images, measured against held-out real ones in a feature space.

Precision and recall: Kynkäänniemi et al. 2019. Density and coverage: Naeem et al. 2020. All four come from the distances between
images, which are computed once and then indexed, because intervals ask for them hundreds of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy
from numpy import ndarray as Array
from scipy.spatial.distance import cdist
from scipy.stats import t as student
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from torch import from_numpy
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from vendi_score import vendi


class Components:
    """Principal components of the reference, as a feature space."""

    def __init__(self, features: Array, count: int):
        self.mean = features.mean(axis=0)
        self.axes = numpy.linalg.svd(features - self.mean, full_matrices=False)[2][:count].T

    def __call__(self, features: Array) -> Array:
        return (features - self.mean) @ self.axes


class Manifold:
    """Points (N, D) and the distance of each to its k-th neighbour."""

    def __init__(self, points: Array, neighbours: int):
        self.points = points
        self.neighbours = neighbours
        self.pairwise = cdist(points, points).astype(numpy.float32)
        self.radii = radii(self.pairwise, neighbours)
        self.statistics = fid_features_to_statistics(from_numpy(points))


def radii(distances: Array, neighbours: int) -> Array:
    """Distance to the k-th nearest other point, (N,)."""
    return numpy.partition(distances, neighbours, axis=1)[:, neighbours]


@dataclass
class Sample:
    """Images of one setting beside the reference, in one feature space."""

    real: Manifold
    points: Array  # (N, D)

    def __post_init__(self):
        self.pairwise = cdist(self.points, self.points).astype(numpy.float32)
        self.to_real = cdist(self.real.points, self.points).astype(numpy.float32)
        self.inside = self.to_real < self.real.radii[:, None]

    def measures(self, chosen: Array | slice = slice(None)) -> dict[str, float]:
        """Of the chosen images alone."""
        pairwise = self.pairwise[chosen][:, chosen]
        to_real, inside = self.to_real[:, chosen], self.inside[:, chosen]
        points = self.points[chosen]
        fid = fid_statistics_to_metric(fid_features_to_statistics(from_numpy(points)), self.real.statistics, verbose=False)
        return {
            "precision": float(inside.any(axis=0).mean()),
            "recall": float((to_real < radii(pairwise, self.real.neighbours)).any(axis=1).mean()),
            "density": float(inside.sum(axis=0).mean() / self.real.neighbours),
            "coverage": float(inside.any(axis=1).mean()),
            "FID": fid[KEY_METRIC_FID],
            "Vendi": float(vendi.score_dual(points - self.real.points.mean(axis=0))),
        }


def spread(points: Array, per_prompt: int) -> Array:
    """Each image's mean distance to the others of its prompt, (N,); images of a prompt stand side by side."""
    groups = points.reshape(-1, per_prompt, points.shape[1])
    distances = numpy.linalg.norm(groups[:, :, None] - groups[:, None], axis=-1)
    return distances.sum(axis=2).ravel() / (per_prompt - 1)


def halves(prompts: int, per_prompt: int, count: int, seed: int = 0) -> list[Array]:
    """Positions of the images of random halves of the prompts.

    Half-sampling is the bootstrap for measures made of nearest neighbours: drawing with replacement would put an image next to
    itself. The spread of a measure over halves, drawn without replacement, equals its standard error on the whole.
    """
    generator = numpy.random.default_rng(seed)
    images = numpy.arange(prompts * per_prompt).reshape(prompts, per_prompt)
    return [images[numpy.sort(generator.permutation(prompts)[: prompts // 2])].ravel() for _ in range(count)]


def apart(a: Array, b: Array, swaps: int = 1000) -> tuple[float, float]:
    """How far the distributions of two values of each prompt, (N,) each, are from one another.

    The greatest difference of their cumulative distributions (Kolmogorov and Smirnov), and the share of `swaps` in which it is as
    great where each prompt's two values change places at random: a distribution is told from another below 5 %.
    """
    order = numpy.argsort(numpy.concatenate([a, b]), kind="stable")
    which = numpy.random.default_rng(0).choice([-1, 1], size=(swaps, len(a)))
    which[0] = 1
    gaps = numpy.abs(numpy.concatenate([which, -which], axis=1)[:, order].cumsum(axis=1)).max(axis=1)
    return float(gaps[0] / len(a)), float((gaps >= gaps[0]).mean())


def palette_validity(images: Array, palette: Array, tolerance: int = 12) -> Array:
    """(N,) share of an image's pixels that are in each channel within `tolerance` of a colour of `palette`.

    `images` (N, 16, 16, 3) and `palette` (colours, 3) are uint8.
    """
    grid = numpy.zeros((256, 256, 256), bool)
    for r, g, b in palette.astype(int):
        grid[tuple(slice(max(0, c - tolerance), c + tolerance + 1) for c in (r, g, b))] = True
    r, g, b = numpy.moveaxis(images, -1, 0)
    return grid[r, g, b].mean(axis=(1, 2))


def image_change(images: Array, plain: Array) -> Array:
    """(N,) root of the mean square of the differences of images, (N, 16, 16, 3) uint8, as a share of full range."""
    return numpy.sqrt(numpy.square((images.astype(float) - plain) / 255).mean(axis=(1, 2, 3)))


def histograms(images: Array, bins: int = 4) -> Array:
    """(N, bins³) share of an image's pixels in each cell of the colour cube."""
    cell = images // (256 // bins)
    index = (cell[..., 0].astype(int) * bins + cell[..., 1]) * bins + cell[..., 2]
    return numpy.stack([numpy.bincount(image.ravel(), minlength=bins**3) for image in index]) / index[0].size


def nearest(points: Array, among: Array, batch: int = 256) -> Array:
    """(N,) Euclidean distance to the nearest of `among`."""
    return numpy.concatenate([cdist(part, among).min(axis=1) for part in numpy.array_split(points, max(1, len(points) // batch))])


class Effect(NamedTuple):
    """Of several models: the mean, half of its 95 % interval, its p, and how large it would have to be to be seen in 80 of 100 studies."""

    mean: float
    half: float
    p: float
    smallest: float


def holm(ps: Sequence[float]) -> Array:
    """(tests,) bool: which of them are shown, so that the chance of one mistake among them is 5 %."""
    return multipletests(ps, alpha=0.05, method="holm")[0]


@numpy.errstate(invalid="ignore", divide="ignore")  # in results that are not used where models are alike
def over_models(means: Array, errors: Array, tests: int = 1) -> Effect:
    """Random effects: each model has an effect of its own, known to within its standard error.

    tau² by DerSimonian and Laird, the interval by Hartung and Knapp: of the mean over models of the kind, not of the next model.
    Where it is one of several `tests`, the smallest effect that would be seen is that at 5 % divided by their number.
    """
    result = combine_effects(means, numpy.maximum(numpy.square(errors), 1e-18), method_re="dl", use_t=True)
    alike = result.tau2 <= 0  # statsmodels does not cut it off at zero
    mean, variance = (result.mean_effect_fe, result.var_hksj_fe) if alike else (result.mean_effect_re, result.var_hksj_re)
    freedom, error = len(means) - 1, float(numpy.sqrt(variance))
    p = float(2 * student.sf(abs(mean) / error, freedom))
    smallest = TTestPower().solve_power(nobs=len(means), alpha=0.05 / tests, power=0.8) * error * numpy.sqrt(len(means))
    return Effect(float(mean), float(student.ppf(0.975, freedom) * error), p, float(smallest))
