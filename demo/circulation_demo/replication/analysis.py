"""From the measures of each model's images to what holds for models of the kind: effects, slopes, tests, and what could have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy
import pandas
from numpy import ndarray as Array
from pandas import DataFrame

from ..evidence.judge import IMAGE_CHANGE
from ..evidence.metrics import Effect, over_models
from ..evidence.report import what_is_seen
from . import plan


@cache
def table(model: Path, slug: str) -> DataFrame:
    """Measures of each image of one row, in the order of prompts and seeds."""
    return pandas.read_csv(model / f"{slug}.csv")


def differences(model: Path, row: plan.Row, measure: str, other: plan.Row = plan.OFF) -> Array:
    """(prompts,): of each prompt the mean difference of its images from the same ones of another row."""
    values, of_other = (table(model, each.slug)[["prompt", measure]] for each in (row, other))
    change = (values[measure] - of_other[measure]).dropna()  # the longer row has more images at its end
    return change.groupby(values["prompt"]).mean().to_numpy()


def slope(model: Path, rows: Sequence[plan.Row], measure: str) -> Array:
    """(prompts,): of each prompt the slope of its differences with strength, through zero."""
    strengths = numpy.array([row.strength for row in rows])
    of_rows = numpy.stack([differences(model, row, measure) for row in rows])
    return strengths @ of_rows / numpy.square(strengths).sum()


def pooled(model: Path, rows: Sequence[plan.Row], measure: str, other: plan.Row = plan.OFF) -> Array:
    """(prompts,): of each prompt the mean of its differences in several rows."""
    return numpy.mean([differences(model, row, measure, other) for row in rows], axis=0)


def combined(of_models: Sequence[Array], tests: int = 1) -> Effect:
    """Random effects over models, of each of which there are the values of its prompts."""
    means = numpy.array([values.mean() for values in of_models])
    return over_models(means, numpy.array([values.std(ddof=1) / len(values) ** 0.5 for values in of_models]), tests)


def difference(models: Sequence[Path], rows: Sequence[plan.Row], measure: str, other: plan.Row = plan.OFF) -> Effect:
    """How far rows, as one, are from another, over models."""
    return combined([pooled(model, rows, measure, other) for model in models])


def dose(models: Sequence[Path], rows: Sequence[plan.Row]) -> Array:
    """(models,): the mean change of an image in these rows."""
    return numpy.array([numpy.mean([table(model, row.slug)[IMAGE_CHANGE].mean() for row in rows]) for model in models])


def without_a_knob(models: Sequence[Path], measure: str) -> float:
    """The mean of a measure over models, of which differences are given in percent."""
    return float(numpy.mean([table(model, plan.OFF.slug)[measure].mean() for model in models]))


def changed(models: Sequence[Path], row: plan.Row) -> pandas.Series:
    """Of a row's images, over models, the shares that are seen to change against the same ones without it."""

    def shares(model: Path) -> pandas.Series:
        of_row = table(model, row.slug)
        gained = (of_row["prompt recognised"] - table(model, plan.OFF.slug)["prompt recognised"])[: len(of_row)]
        return DataFrame(what_is_seen(of_row[IMAGE_CHANGE], gained)).mean()

    return DataFrame([shares(model) for model in models]).mean()
