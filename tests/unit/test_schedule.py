"""The painted grid: what is read of it, and how it falls on blocks and sigmas."""

import json
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.host import engine, node

schedule = engine("rules.schedule")
Schedule = schedule.Schedule

cases = settings(max_examples=60, deadline=None, derandomize=True)

CELLS = st.floats(0, 2, width=32)
SHAPES = st.tuples(st.integers(1, schedule.MAX_ROWS), st.integers(1, schedule.MAX_COLUMNS))


@st.composite
def grids(draw, shapes=SHAPES):
    """A grid of a few distinct values, so that a 32 × 64 one is drawn in no time."""
    rows, columns = draw(shapes)
    values = draw(st.lists(CELLS, min_size=1, max_size=8))
    order = draw(st.randoms(use_true_random=False))
    return tuple(tuple(order.choice(values) for _ in range(columns)) for _ in range(rows))


def percent_to_sigma(percent):
    """As the model's own: descending, with ends far out."""
    return 1e9 if percent <= 0 else 0.0 if percent >= 1 else 14.6 * (1 - percent) ** 3


def factors(grid, blocks, percent):
    return Schedule(grid).resampled(blocks, percent_to_sigma)(percent_to_sigma(percent))


# --- resampling


@cases
@given(grids())
def test_as_many_rows_as_blocks_are_taken_as_they_are(grid):
    for number, column in enumerate(zip(*grid)):
        assert factors(grid, len(grid), (number + 0.5) / len(grid[0])) == column


@cases
@given(SHAPES, CELLS, st.integers(1, 140), st.floats(0, 1))
def test_equal_cells_give_their_own_value_exactly(shape, value, blocks, percent):
    rows, columns = shape
    assert set(factors(((value,) * columns,) * rows, blocks, percent)) == {value}


@cases
@given(grids(), st.integers(1, 140))
def test_blocks_share_out_the_depth(grid, blocks):
    """Each row counts by the share of the depth it has, whatever the number of blocks: nothing painted is lost or counted twice."""
    mean = factors(grid, blocks, 0)
    first = [row[0] for row in grid]
    assert sum(mean) / blocks == pytest.approx(sum(first) / len(first), abs=1e-6)
    fine = [first[part // blocks] for part in range(len(grid) * blocks)]  # the depth in parts that divide rows and blocks
    expected = [float(sum(map(Fraction, fine[b * len(grid) : (b + 1) * len(grid)])) / len(grid)) for b in range(blocks)]
    assert list(mean) == expected


@cases
@given(grids(), st.floats(0, 1))
def test_columns_share_out_the_sampling(grid, percent):
    columns = list(zip(*grid))
    place = min(int(percent * len(columns)), len(columns) - 1)
    near = {place, *(p for p in (place - 1, place + 1) if 0 <= p < len(columns) and abs(percent * len(columns) - (p + (p < place))) < 1e-5)}
    assert factors(grid, len(grid), percent) in [columns[p] for p in near]


@cases
@given(grids(), st.integers(1, 140), st.floats(0, 1), st.data())
def test_more_in_a_cell_is_never_less_anywhere(grid, blocks, percent, data):
    row, column = data.draw(st.integers(0, len(grid) - 1)), data.draw(st.integers(0, len(grid[0]) - 1))
    more = [list(r) for r in grid]
    more[row][column] = 2.0
    before, after = factors(grid, blocks, percent), factors(more, blocks, percent)
    assert all(b <= a for b, a in zip(before, after))


@cases
@given(grids(), st.integers(1, 140))
def test_a_ramp_stays_a_ramp(grid, blocks):
    down = tuple(sorted(grid, key=lambda row: row[0]))
    found = factors(down, blocks, 0)
    assert list(found) == sorted(found)
    along = tuple(tuple(sorted(row)) for row in grid)
    over_time = [factors(along, blocks, step / 20) for step in range(21)]
    assert all(x <= y for a, b in pairwise(over_time) for x, y in zip(a, b))


@cases
@given(grids(), st.integers(1, 140), st.floats(0, 1))
def test_factors_stay_among_the_cells(grid, blocks, percent):
    found = factors(grid, blocks, percent)
    assert len(found) == blocks
    assert min(map(min, grid)) <= min(found) and max(found) <= max(map(max, grid))


# --- text


@cases
@given(grids())
def test_what_is_written_is_read(grid):
    assert Schedule.parse(json.dumps({"grid": grid})).grid == grid


WRONG = [
    ("", "line 1, column 1"),
    ('{"grid": [[1, 1],\n[1 1]]}', "line 2, column 4"),
    ('{"grid": [[1, 1], [1, 1]]', "line 1, column 26"),
    ("[[1, 1]]", 'no "grid"'),
    ('{"cells": [[1]]}', 'no "grid"'),
    ('{"grid": [[1]], "smooth": true}', '"smooth" is not known'),
    ('{"grid": []}', "1 to 32 rows"),
    ('{"grid": 1}', "1 to 32 rows"),
    ('{"grid": [[1], []]}', "row 2 must have 1 to 64 numbers"),
    ('{"grid": [[1], 1]}', "row 2 must have"),
    ('{"grid": [[1, 1, 1], [1, 1]]}', "row 2 has 2 numbers, but row 1 has 3"),
    ('{"grid": [[1, 1], [1, 2.01]]}', "row 2, number 2 is 2.01"),
    ('{"grid": [[-0.1]]}', "row 1, number 1 is -0.1"),
    ('{"grid": [[1, NaN]]}', "row 1, number 2 is NaN"),
    ('{"grid": [[1, null]]}', "row 1, number 2 is null"),
    ('{"grid": [[1, true]]}', "row 1, number 2 is true"),
    ('{"grid": [["1"]]}', 'row 1, number 1 is "1"'),
    (json.dumps({"grid": [[1]] * 33}), "1 to 32 rows"),
    (json.dumps({"grid": [[1] * 65]}), "row 1 must have 1 to 64"),
    ("[" * 100_000, "grid: "),
    (f'{{"grid": [[{"9" * 5000}]]}}', "grid: "),
]


@pytest.mark.parametrize("text, words", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_by_its_place(text, words):
    cls = node("CirculationSchedule")
    with pytest.raises(ValueError, match="^grid: ") as error:
        cls.execute(text)
    assert words in str(error.value)
    assert cls.validate_inputs(text) == str(error.value)  # the front end shows it at the node before anything runs


def test_the_default_is_a_valid_grid_of_ones():
    info = node("CirculationSchedule").GET_NODE_INFO_V1()
    default = info["input"]["required"]["grid"][1]["default"]
    assert set(sum(Schedule.parse(default).grid, ())) == {1.0}
    assert node("CirculationSchedule").validate_inputs() is True  # a link, whose value is not known yet
