"""The blocks of a model as rows to pick, and the words that they become in another node."""

import random

import pytest
from support.host import engine

blocks = engine("rules.blocks")
ADDRESSES = [
    [*(("input", *place) for place in [(4, 0), (4, 1), (5, 0), (5, 1), (7, 0)]), ("middle", 0, 0), ("output", 0, 0), ("output", 3, 0)],
    [*(("double", n, None) for n in range(5)), *(("single", n, None) for n in range(12))],
    [("layer", n, None) for n in range(6)],
]


@pytest.fixture(scope="module")
def words(page):
    """The words that js/blocks.js has for picked blocks."""
    script = "/extensions/attention-circulation/blocks.js"
    return lambda picked, all: page.evaluate(f"async ([picked, all]) => (await import('{script}')).shortest(picked, all)", [picked, all])


@pytest.mark.parametrize("addresses", ADDRESSES, ids=["unet", "two kinds", "one kind"])
def test_words_mean_the_blocks_that_were_picked(words, addresses):
    model, choice = [blocks.Block(*address, 8, 64) for address in addresses], random.Random(0)
    for chance in (0.1, 0.5, 0.9) * 12:
        picked = [block for block in model if choice.random() < chance] or model[:1]
        text = words([str(block) for block in picked], [str(block) for block in model])
        assert list(blocks.Selection.parse(text).of(model)) == picked, text


@pytest.mark.parametrize("picked, expected", [
    ([], ""),
    (["input.4.0", "input.4.1", "input.5.0", "input.5.1", "input.7.0", "middle.0.0", "output.0.0", "output.3.0"], "all"),
    (["middle.0.0", "output.0.0", "output.3.0"], "!input"),
    (["middle.0.0", "output.0.0"], "middle, output.0"),
    (["input.4.1"], "input.4.1"),
    (["input.5.0", "input.5.1", "input.7.0"], "input.5-7"),
    (["input.4.0", "input.4.1", "input.5.0", "input.5.1", "input.7.0", "output.0.0", "output.3.0"], "!middle"),
])  # fmt: skip
def test_words_are_those_that_one_would_write(words, picked, expected):
    model = [str(blocks.Block(*address, 8, 64)) for address in ADDRESSES[0]]
    assert words(picked, model) == expected


def of_type(id, type, inputs, outputs, *values):
    place = dict(pos=[500 * (id - 1), 0], size=[340, 420], flags={}, order=id, mode=0, properties={})
    return dict(id=id, type=type, inputs=inputs, outputs=outputs, widgets_values=list(values), **place)


MODEL = {"name": "model", "type": "MODEL"}
GRAPH = {
    "nodes": [
        of_type(1, "CheckpointLoaderSimple", [], [{"name": "MODEL", "type": "MODEL", "links": [1, 2]}], "sd_xl_base_1.0.safetensors"),
        of_type(2, "ModelBlocks", [{**MODEL, "link": 1}], [{"name": "blocks", "type": "STRING", "links": None}]),
        of_type(3, "CirculationControl", [{**MODEL, "link": 2}], [{**MODEL, "links": None}]),
    ],
    "links": [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 0, 3, 0, "MODEL"]],
    "version": 0.4, "last_node_id": 3, "last_link_id": 2, "groups": [], "config": {}, "extra": {},
}  # fmt: skip


@pytest.fixture
def listed(screen):
    """After a run of List Model Blocks, with a Circulation node beside it."""
    screen.load(GRAPH)
    screen.queue()
    screen.finished()
    screen.look_at("ModelBlocks")
    return screen


def box(screen, name):
    return screen.widget("ModelBlocks").query_selector(f"label[title^='{name}'] input")


def said(screen):
    return screen.text("ModelBlocks", ":scope > .note")


def test_rows_are_picked_and_put_into_a_node(listed, page):
    screen = listed
    assert said(screen) == "Pick blocks below."
    button = screen.widget("ModelBlocks").query_selector("button")
    assert button.is_disabled()
    box(screen, "input.").click()
    assert said(screen).startswith("input.")
    assert screen.js("widget('ModelBlocks').querySelector('.stage[title=input] input').indeterminate")
    box(screen, "input").click()  # the stage comes first
    assert said(screen) == "input"
    button.click()
    assert screen.value("CirculationControl", "blocks") == "input"
    screen.keys("Control+z", until=lambda: screen.value("CirculationControl", "blocks") == "all")


def test_keys_pick_too(listed, page):
    screen = listed
    box(screen, "input").focus()
    for key in ["ArrowDown", " ", "ArrowDown", " ", "ArrowUp", " "]:
        page.keyboard.press(key)
    assert said(screen).startswith("input.") and "," not in said(screen)
    screen.widget("ModelBlocks").query_selector("button").focus()
    page.keyboard.press("Enter")
    assert screen.value("CirculationControl", "blocks") == said(screen)


def test_the_rows_are_there_again_after_a_reload(listed, page):
    # nobody has changed this workflow since it was loaded, and front ends store only what has changed
    page.evaluate("() => comfyAPI.api.api.dispatchCustomEvent('graphChanged', app.rootGraph.serialize())")
    listed.reload()
    listed.look_at("ModelBlocks")
    assert said(listed) == "Pick blocks below." and box(listed, "output.")


@pytest.mark.both_renderers
@pytest.mark.parametrize("palette", ["dark", "light"])
def test_text_and_lines_stand_out(listed, palette):
    listed.palette(palette)
    box(listed, "input.").click()
    texts, lines = listed.contrasts()
    assert len(texts) > 8 and min(texts.values()) >= 4.5 and min(lines.values()) >= 3, (texts, lines)
    listed.palette("dark")


def test_the_keyboard_alone_reaches_all(listed, page):
    box(listed, "input").click()  # or there is nothing to be put
    page.evaluate("() => document.activeElement?.blur?.()")
    wanted, reached = {"blocks Node that takes the blocks", "blocks Put into blocks", "blocks "}, set()  # the last are the boxes
    for _ in range(250):
        page.keyboard.press("Tab")
        reached.add(listed.focused())
        if wanted <= reached:
            return
    raise AssertionError(reached)


@pytest.mark.both_renderers
def test_a_page_at_200_percent_clips_nothing_and_rows_are_picked(listed):
    with listed.zoomed(2):
        listed.look_at("ModelBlocks")
        assert listed.overflowing("ModelBlocks") == []
        box(listed, "input").click()
        assert said(listed) == "input"


def test_nothing_moves_by_itself(listed, page):
    page.emulate_media(reduced_motion="reduce")
    assert listed.moving() == []
    page.emulate_media(reduced_motion="no-preference")
    assert listed.moving() == []
