"""The grammar of block addresses."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.host import engine, node

blocks = engine("rules.blocks")
Block, Item, Selection, describe = blocks.Block, blocks.Item, blocks.Selection, blocks.describe

# The shape of SDXL, shortened: no block input.2, several layers in some.
MODEL = tuple(
    Block(stage, index, layer, heads=10, head_dim=64)
    for stage, index, layers in [
        ("input", 1, 1),
        ("input", 3, 2),
        ("input", 4, 2),
        ("middle", 0, 3),
        ("output", 0, 2),
        ("output", 1, 2),
        ("output", 3, 1),
    ]
    for layer in range(layers)
)


def select(text):
    return " ".join(map(str, Selection.parse(text).of(MODEL)))


@pytest.mark.parametrize("text, selected", [
    ("all", " ".join(map(str, MODEL))),
    ("input", "input.1.0 input.3.0 input.3.1 input.4.0 input.4.1"),
    ("input.4", "input.4.0 input.4.1"),
    ("input.4.1", "input.4.1"),
    ("output.1-3", "output.1.0 output.1.1 output.3.0"),
    ("middle.0.1-2", "middle.0.1 middle.0.2"),
    ("input.1-3.0", "input.1.0 input.3.0"),
    ("0%-40%", "input.1.0 input.3.0 input.3.1 input.4.0 input.4.1"),
    ("92.5%-100%", "output.3.0"),
    ("output !output.0-1", "output.3.0"),
    ("!input !output", "middle.0.0 middle.0.1 middle.0.2"),
    ("!0%-85%", "output.1.1 output.3.0"),
    ("!output.0-1, output", "output.3.0"),
    (" ,Input.1,,  INPUT.3.1\n,", "input.1.0 input.3.1"),
])  # fmt: skip
def test_forms(text, selected):
    assert select(text) == selected


@pytest.mark.parametrize("text, blames", [
    ("", "No block is selected"),
    (" , ", "No block is selected"),
    ("inptu.4", "'inptu.4' selects no block"),
    ("input.2", "'input.2' selects no block"),
    ("input.4.2", "'input.4.2' selects no block"),
    ("input.3, output.9, middle", "'output.9' selects no block"),
    ("all !double.3", "'!double.3' selects no block"),
    ("input.x", "'input.x' is not a block"),
    ("input.4.1.0", "'input.4.1.0' is not a block"),
    ("input.5-3", "runs backwards"),
    ("60%-40%", "from the smaller to the larger"),
    ("0%-140%", "up to 100%"),
    ("40%", "'40%' is not a block"),
    ("-1", "'-1' is not a block"),
    ("0%-1%", "'0%-1%' selects no block"),
    ("input !input", "takes away every block"),
    ("!all", "takes away every block"),
])  # fmt: skip
def test_a_wrong_item_is_named(text, blames):
    with pytest.raises(ValueError, match=blames.replace("'", "['\"]?").replace("(", r"\(")):
        select(text)


def test_an_unknown_item_is_answered_with_what_exists():
    with pytest.raises(ValueError) as error:
        select("input.2")
    assert "input.1.0, input.3.0-1, input.4.0-1, middle.0.0-2, output.0.0-1, output.1.0-1, output.3.0" in str(error.value)


def test_what_the_error_lists_is_itself_a_selection():
    assert select(describe(MODEL)) == select("all")


ranges = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda r: tuple(sorted(r)))
percents = st.decimals(0, 100, places=3)
items = st.one_of(
    st.builds(Item, st.booleans()),
    st.builds(Item, st.booleans(), st.sampled_from(["input", "middle", "output", "double", "layer"])),
    st.builds(Item, st.booleans(), st.just("input"), ranges),
    st.builds(Item, st.booleans(), st.just("output"), ranges, ranges),
    st.tuples(st.booleans(), percents, percents)
    .filter(lambda t: t[1] != t[2])
    .map(lambda t: Item(t[0], depth=tuple(sorted(t[1:])))),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(items, min_size=1, max_size=6))
def test_parse_print_parse_is_stable(chosen):
    selection = Selection(tuple(chosen))
    assert Selection.parse(str(selection)) == selection
    assert str(Selection.parse(str(selection))) == str(selection)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="alinputmdeo.0123456789%-!, \n", max_size=24))
def test_any_text_parses_or_is_refused_in_words(text):
    try:
        selection = Selection.parse(text)
    except ValueError as error:
        assert str(error).endswith(".")
    else:
        assert Selection.parse(str(selection)) == selection


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True))
def test_depths_that_meet_share_out_every_block_once(cuts):
    edges = [0, *sorted(cuts), 100]
    found = []
    for start, end in pairwise(edges):
        item = Item(depth=(start, end))
        depths = [100 * (i + 0.5) / len(MODEL) for i in range(len(MODEL))]
        found += [block for block, depth in zip(MODEL, depths) if item.selects(block, depth)]
    assert found == list(MODEL)


WITH_BLOCKS = ["CirculationControl", "CirculationAdaptive", "CirculationSweep", "CirculationGrid", "StabilityProbe"]


@pytest.mark.parametrize("id", WITH_BLOCKS)
@pytest.mark.parametrize("text, words", [
    ("midle", "'midle': no model has blocks of this name. Did you mean middle?"),
    ("input, !ouput.3-5", "'!ouput.3-5': no model has blocks of this name. Did you mean output?"),
    ("al", "Did you mean all?"),
    ("attention.4", "Names are input, middle, output, double, single, "),
    ("output.3-", "'output.3-' is not a block"),
    ("input.5-3", "runs backwards"),
    (" , ", "No block is selected"),
])  # fmt: skip
def test_what_is_wrong_on_every_model_is_refused_before_anything_runs(id, text, words):
    assert words in node(id).validate_inputs(blocks=text)


@pytest.mark.parametrize("id", WITH_BLOCKS)
def test_what_some_model_has_is_not_refused_before_the_model_is_known(id):
    stages = {stage.name for family in engine("families").TRANSFORMERS.values() for stage in family.stages} | {"input", "middle", "output"}
    for text in (None, "all", "0%-40%", "!middle", *(f"{stage}.999" for stage in stages)):
        assert node(id).validate_inputs(blocks=text) is True
