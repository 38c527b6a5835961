"""A schedule: strength over depth × time, painted as a grid."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch

from ..choices import check_text
from ..text import shown

# The painter in js/painter.js has the same limits.
MAX_ROWS, MAX_COLUMNS = 32, 64
MAX_FACTOR = 2


@dataclass(frozen=True)
class Schedule:
    """`grid[row][column]` is a factor on α − 1: 0 off, 1 as set, up to 2.

    Rows share out the depth of the model, the first row its first blocks; columns share out the
    sampling, the first column its start, pure noise.
    """

    grid: tuple[tuple[float, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """From JSON such as {"grid": [[1, 1, 0], [1, 2, 0.5]]}. Raises ValueError that names the place that is wrong."""
        check_text("grid", text)
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"grid: line {error.lineno}, column {error.colno}: {error.msg}. {_EXAMPLE}") from None
        except (RecursionError, ValueError) as error:  # brackets too deep, a number too long
            raise ValueError(f"grid: {shown(error)}. {_EXAMPLE}") from None
        if not isinstance(value, dict) or "grid" not in value:
            raise ValueError(f"grid: there is no \"grid\" in it. {_EXAMPLE}")
        for key in value.keys() - {"grid"}:
            raise ValueError(f"grid: \"{shown(key)}\" is not known to this version. {_EXAMPLE}")
        return cls(_checked(value["grid"]))

    @property
    def off(self) -> bool:
        return not any(map(any, self.grid))

    @property
    def changes_in_time(self) -> bool:
        return any(len(set(row)) > 1 for row in self.grid)

    def resampled(self, blocks: int, percent_to_sigma: Callable[[float], float]) -> Callable[[float], tuple[float, ...]]:
        """A function of sigma that gives the factor of each of a model's `blocks` in execution order.

        Depth is shared out evenly among the blocks, and a block's factor is the mean of the rows over
        its share: whatever is painted has an effect, and as many rows as blocks are taken as they are.
        A sigma has the column in whose part of the sampling it lies; where two columns meet, the later.
        """
        columns = [tuple(_mean(column, block, blocks) for block in range(blocks)) for column in zip(*self.grid)]
        starts = [percent_to_sigma(number / len(columns)) for number in range(1, len(columns))]
        # float32, in which samplers hold sigma; negated, because bisect wants ascending numbers
        ascending = [-sigma for sigma in torch.tensor(starts, dtype=torch.float32).tolist()]
        return lambda sigma: columns[bisect_right(ascending, -sigma)]

    def __str__(self) -> str:
        return f"{len(self.grid)} \N{MULTIPLICATION SIGN} {len(self.grid[0])} schedule"


def _mean(column: tuple[float, ...], block: int, blocks: int) -> float:
    """Mean of a column's rows over one block's share of the depth. Exact, so that equal rows give their own value."""
    rows = len(column)
    total = Fraction(0)
    for row in range(block * rows // blocks, -(-(block + 1) * rows // blocks)):
        # both in units of 1 / (rows × blocks) of the depth
        overlap = min((block + 1) * rows, (row + 1) * blocks) - max(block * rows, row * blocks)
        total += overlap * Fraction(column[row])
    return float(total / rows)


_EXAMPLE = 'Write rows of numbers, first blocks first: {"grid": [[1, 1, 0], [1, 2, 0.5]]}.'


def _checked(grid: object) -> tuple[tuple[float, ...], ...]:
    if not isinstance(grid, list) or not 1 <= len(grid) <= MAX_ROWS:
        raise ValueError(f"grid: there must be 1 to {MAX_ROWS} rows. {_EXAMPLE}")
    for number, row in enumerate(grid, 1):
        if not isinstance(row, list) or not 1 <= len(row) <= MAX_COLUMNS:
            raise ValueError(f"grid: row {number} must have 1 to {MAX_COLUMNS} numbers. {_EXAMPLE}")
        if len(row) != len(grid[0]):
            raise ValueError(f"grid: row {number} has {len(row)} numbers, but row 1 has {len(grid[0])}.")
        for column, cell in enumerate(row, 1):
            if isinstance(cell, bool) or not isinstance(cell, (int, float)) or not 0 <= cell <= MAX_FACTOR:
                raise ValueError(
                    f"grid: row {number}, number {column} is {shown(json.dumps(cell), 40)} and must be a number from 0 to {MAX_FACTOR}."
                )
    return tuple(tuple(map(float, row)) for row in grid)
