"""How different the images of one batch are from each other: mean pairwise distance, Vendi score, and how sure both are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import betaincinv, stdtrit
from torch import Tensor

SIDE = 64  # pixels are compared at this height and width
LEVEL = 0.95
FEWEST, FEWEST_VENDI = 4, 8  # images from which on intervals cover what they say: tests/unit/test_comparison.py
SAME = 0.25  # of the mean length between two images: closer ones are of one kind, and a few images do not show which kinds there are


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, which is None where none can be honest."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Diversity:
    distance: Estimate
    vendi: Estimate


def in_pixels(images: Tensor) -> Diversity:
    """Of images (n, 3, 64, 64) in 0…1: root mean square difference, and Vendi score of the cosines of pixels in −1…1."""
    pixels = images.flatten(1).double()
    distances = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist") / pixels.shape[1] ** 0.5
    return _diversity(distances, distances, cosines(2 * pixels - 1))


def in_embeddings(embeddings: Tensor) -> Diversity:
    """Of embeddings (n, d): one minus their cosine, and the Vendi score of the cosines."""
    similarities = cosines(embeddings.double())
    return _diversity((1 - similarities).clamp(min=0).sqrt(), 1 - similarities, similarities)


def cosines(points: Tensor) -> Tensor:
    """(n, n) of points (n, d). Points without a length, such as a grey image's, are like each other and like no other."""
    points = torch.cat((points, torch.full_like(points[:, :1], 1e-9)), dim=1)
    points = points / points.norm(dim=1, keepdim=True)
    return points @ points.T


def mean_distance(distances: Tensor) -> float:
    """Of distances (n, n), over pairs of different images; n is at least 2."""
    n = len(distances)
    return float((distances.sum() - distances.diagonal().sum()) / (n * (n - 1)))


def vendi_score(similarities: Tensor) -> float:
    """exp of the entropy of the eigenvalues of K/n: how many different images there are, in effect; 1 to n.

    Friedman and Dieng, The Vendi Score, TMLR 2023, arXiv:2210.02410. `similarities` K: (n, n), 1 on its diagonal.
    """
    eigenvalues = torch.linalg.eigvalsh(similarities / len(similarities)).clamp(min=0)
    return float(torch.special.entr(eigenvalues).sum().exp())


def share(hits: int, of: int) -> Estimate:
    """A share of independent images, with Clopper and Pearson's interval (Biometrika 26, 1934): no less than 95 % for any true share."""
    if of < FEWEST:
        return Estimate(hits / of)
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(hits, of - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, of - hits, 1 - tail)) if hits < of else 1.0
    return Estimate(hits / of, (low, high))


def _diversity(apart: Tensor, distances: Tensor, similarities: Tensor) -> Diversity:
    alike = float(_pairs(apart).min()) <= SAME * mean_distance(apart)
    count = 0 if alike else len(distances)
    return Diversity(
        _estimate(mean_distance, distances, count >= FEWEST), _estimate(vendi_score, similarities, count >= FEWEST_VENDI, len(distances))
    )


def _pairs(matrix: Tensor) -> Tensor:
    return matrix[tuple(torch.triu_indices(*matrix.shape, offset=1))]


def _estimate(statistic: Callable[[Tensor], float], matrix: Tensor, sure: bool, most: float = math.inf) -> Estimate:
    """With the interval of the jackknife (Efron and Stein, Annals of Statistics 9, 1981) on a logarithmic scale."""
    value = statistic(matrix)
    if not sure:
        return Estimate(value)
    n = len(matrix)
    others = ~torch.eye(n, dtype=torch.bool)
    without = torch.tensor([statistic(matrix[kept][:, kept]) for kept in others], dtype=torch.float64).log()
    error = float(((n - 1) / n * (without - without.mean()).square().sum()).sqrt())
    reach = math.exp(float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error)
    return Estimate(value, (value / reach, min(value * reach, most)))
