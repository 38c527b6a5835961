"""Which call of a block is over the image, and where, for a family whose class the ComfyUI of the tests may not have yet."""

from types import SimpleNamespace

import pytest
import torch
from support.host import engine

family = engine("families.table").TRANSFORMERS["comfy.ldm.qwen_image21.model.QwenImage21Transformer2DModel"]
Forward, Square = engine("families.forward").Forward, engine("method.formula").Square
ALL = slice(None)

# A text of 9, cut at 4 by a reference of 4 × 5, and an image of 6 × 8: (queries, keys) of a block's calls
PARTS = [(4, 4), (20, 24), (5, 29), (48, 77)]


def followed(parts, blocks=2):
    """(address, image, all) of every call."""
    conditions = {"c_crossattn": torch.zeros(1, 9, 8), "ref_latents": [torch.zeros(1, 64, 4, 5)]}
    addresses = {("single", index, 0): ("single", index, None) for index in range(blocks)}
    forward = Forward(family, SimpleNamespace(), addresses, (1, 64, 6, 8), conditions)
    for index in range(blocks):
        for queries, keys in parts:
            address = forward.next_address(None, ("single", index), queries, keys)
            yield address, *(forward.squares(queries, keys, None) if address else (None, None))


@pytest.mark.parametrize("parts", [PARTS, PARTS[-1:]], ids=["every part asks", "the others are cached"])
def test_the_last_part_of_qwen_image_21_is_the_image(parts):
    found = list(followed(parts))
    own = Square(ALL, slice(29, 77))
    others = [(None, None, None)] * (len(parts) - 1)
    assert found == [*others, (("single", 0, None), own, own), *others, (("single", 1, None), own, own)]


def test_a_sequence_of_another_length_is_left_alone():
    """As where another node puts tokens of its own into it."""
    assert not any(address for address, *_ in followed([(4, 4), (20, 24), (5, 29), (48, 80)]))
