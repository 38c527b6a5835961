"""Block addresses and the grammar that selects them.

A selection is a list of items separated by commas or spaces:

    all                every block
    output             a stage
    input.4, double.7  a block, with all its layers; indices are ComfyUI's own
    input.4.1          one layer of a block that has several
    output.3-5         a range, of blocks or (output.3.0-1) of layers
    0%-40%             a depth, in execution order: portable between models
    !middle            whatever the other items say, not these; alone: all but these

The order of items does not matter and empty items are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from ..choices import check_text
from ..text import shown

Address = tuple[str, int, int | None]


@dataclass(frozen=True)
class Block:
    """One self-attention of a model."""

    stage: str
    index: int
    layer: int | None  # None where a block has no more than one
    heads: int
    head_dim: int

    @property
    def address(self) -> Address:
        return self.stage, self.index, self.layer

    def __str__(self) -> str:
        return ".".join(str(part) for part in self.address if part is not None)


_ADDRESS = re.compile(r"(?P<stage>[a-z_]+)(?:\.(?P<index>\d{1,9}(?:-\d{1,9})?)(?:\.(?P<layer>\d{1,9}(?:-\d{1,9})?))?)?")
_DEPTH = re.compile(r"(?P<start>\d{1,9}(?:\.\d{1,9})?)%-(?P<end>\d{1,9}(?:\.\d{1,9})?)%")


@dataclass(frozen=True)
class Item:
    """One item of a selection. A stage of None means every stage; ranges include both ends."""

    exclude: bool = False
    stage: str | None = None
    index: tuple[int, int] | None = None
    layer: tuple[int, int] | None = None
    depth: tuple[Decimal, Decimal] | None = None

    @classmethod
    def parse(cls, text: str) -> Item:
        exclude = text.startswith("!")
        body = text.removeprefix("!")
        if body == "all":
            return cls(exclude)
        if match := _DEPTH.fullmatch(body):
            start, end = Decimal(match["start"]), Decimal(match["end"])
            if not start < end <= 100:
                raise ValueError(f"'{shown(text)}': a depth runs from the smaller to the larger percentage, up to 100%.")
            return cls(exclude, depth=(start, end))
        if match := _ADDRESS.fullmatch(body):
            return cls(exclude, match["stage"], _range(match["index"], text), _range(match["layer"], text))
        raise ValueError(
            f"'{shown(text)}' is not a block: write all, or a block that the model has, such as input.4, input.4.1, double.3-5, "
            "or 0%-40% (depth), or !middle."
        )

    def __str__(self) -> str:
        if self.depth is not None:
            body = "-".join(f"{percent:f}%" for percent in self.depth)
        else:
            ranges = (str(low) if low == high else f"{low}-{high}" for low, high in filter(None, (self.index, self.layer)))
            body = ".".join((self.stage or "all", *ranges))
        return "!" * self.exclude + body

    def selects(self, block: Block, depth: float) -> bool:
        """`depth` is where the middle of the block lies in execution order, in percent."""
        if self.depth is not None:
            return self.depth[0] <= depth < self.depth[1]
        return (
            self.stage in (None, block.stage)
            and _in_bounds(block.index, self.index)
            and _in_bounds(block.layer, self.layer)
        )


def _range(text: str | None, item: str) -> tuple[int, int] | None:
    if text is None:
        return None
    low, _, high = text.partition("-")
    if int(high or low) < int(low):
        raise ValueError(f"'{shown(item)}': the range {text} runs backwards.")
    return int(low), int(high or low)


def _in_bounds(number: int | None, bounds: tuple[int, int] | None) -> bool:
    return bounds is None or (number is not None and bounds[0] <= number <= bounds[1])


@dataclass(frozen=True)
class Selection:
    items: tuple[Item, ...]

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Raises ValueError that names the item which is wrong."""
        check_text("blocks", text)
        items = tuple(Item.parse(item) for item in re.split(r"[,\s]+", text.strip().lower()) if item)
        if not items:
            raise ValueError("No block is selected: write 'all' to select every block.")
        return cls(items)

    def __str__(self) -> str:
        return ", ".join(map(str, self.items))

    def of(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        """The selected ones of a model's blocks, which are given in execution order.

        Raises ValueError that names an item which selects nothing and lists what the model has.
        """
        depths = [100 * (position + 0.5) / len(blocks) for position in range(len(blocks))]
        chosen = {
            item: {block for block, depth in zip(blocks, depths) if item.selects(block, depth)} for item in self.items
        }
        for item, matches in chosen.items():
            if not matches:
                raise ValueError(f"'{shown(item)}' selects no block. This model has {shown(describe(blocks), 400)}.")
        included = set().union(*(matches for item, matches in chosen.items() if not item.exclude))
        excluded = set().union(*(matches for item, matches in chosen.items() if item.exclude))
        if all(item.exclude for item in self.items):
            included = set(blocks)
        selected = tuple(block for block in blocks if block in included - excluded)
        if not selected:
            raise ValueError(f"'{shown(self)}' takes away every block it selects. This model has {shown(describe(blocks), 400)}.")
        return selected


def describe(blocks: Iterable[Block]) -> str:
    """Addresses in the grammar's own words, neighbours as a range: 'input.4.0-1, middle.0.0', 'double.0-18'."""
    parts = []
    for prefix, group in groupby(blocks, key=lambda block: block.address[: 1 if block.layer is None else 2]):
        numbers = [block.index if block.layer is None else block.layer for block in group]
        starts = [n for n, number in enumerate(numbers) if n == 0 or number != numbers[n - 1] + 1]
        for start, stop in zip(starts, [*starts[1:], len(numbers)]):
            low, high = numbers[start], numbers[stop - 1]
            parts.append(".".join(map(str, (*prefix, low if low == high else f"{low}-{high}"))))
    return ", ".join(parts)
