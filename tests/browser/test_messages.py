"""What a node says itself: of a run, of a run that came from the cache, and of what went wrong."""

import itertools
import uuid

import pytest
from support.screen import small_graph
from support.workflows import workflow

EXPECTED = [r"status of 400 .*/api/prompt$", r"^PromptExecutionError: "]  # what the front end logs of a prompt that is refused
HIT = "6 of 6 blocks hit, all 4 steps, positive and negative."
PROBLEM = """(() => {
    const problem = node(values[0]).widgets.map(({ element }) => element?.querySelector(".circulation > .problem")).find(Boolean);
    if (!problem) return null;
    const [own, around] = [problem, problem.parentElement].map(element => element.getBoundingClientRect());
    const whole = problem.scrollHeight <= problem.clientHeight && own.height > 10 && own.bottom <= around.bottom + 1;
    return problem.checkVisibility() ? [problem.textContent, whole] : null;
})()"""

seeds = itertools.count(5000)


def nothing_wrong(screen, name):
    screen.look_at(name)
    return screen.js(PROBLEM, name) is None


def says_what_is_wrong(screen, name, begins):
    """Whether it stands on the node, once it is known, and can be read whole."""
    screen.look_at(name)
    screen.wait(lambda: screen.js(PROBLEM, name))
    screen.settle()
    text, whole = screen.js(PROBLEM, name)
    assert whole, text
    return text.startswith(begins)


@pytest.fixture
def graph(screen):
    """A workflow with a probe and its readout, with an id and a seed of its own for each test."""
    graph = small_graph(workflow("circulation-schedule"), steps=4, seed=next(seeds))
    graph["id"] = str(uuid.uuid4())  # results are kept by it
    screen.load(graph)
    change(screen, "CirculationControl", "blocks", "all")
    screen.js("node(values[0]).disconnectInput(node(values[0]).findInputSlot('schedule'))", "CirculationControl")
    return graph


def change(screen, name, widget, value):
    screen.js("(() => { node(values[0]).widgets.find(({ name }) => name === values[1]).value = values[2]; })()", name, widget, value)


def fails(screen, event="execution_error"):
    screen.queue()
    assert screen.page.evaluate("window.finished")[0] == event
    screen.page.keyboard.press("Escape")  # the dialog of older front ends
    screen.settle()


def refused(screen):
    screen.page.evaluate("async () => { await app.queuePrompt(0, 1); }")
    screen.page.keyboard.press("Escape")
    screen.settle()


def test_a_value_that_is_refused_is_named_on_its_node_until_it_is_mended(graph, screen):
    change(screen, "CirculationControl", "blocks", "midle")
    change(screen, "CirculationSchedule", "grid", "[]")
    screen.js("node('CirculationSchedule').connect(0, node('CirculationControl'), 'schedule')")
    refused(screen)
    assert says_what_is_wrong(screen, "CirculationControl", "'midle': no model has blocks of this name. Did you mean middle?")
    assert says_what_is_wrong(screen, "CirculationSchedule", "grid: there is no \"grid\" in it.")
    change(screen, "CirculationControl", "blocks", "all")
    refused(screen)
    assert nothing_wrong(screen, "CirculationControl")
    assert says_what_is_wrong(screen, "CirculationSchedule", "grid: ")
    change(screen, "CirculationSchedule", "grid", '{"grid": [[1]]}')
    screen.queue()
    screen.finished()
    assert nothing_wrong(screen, "CirculationSchedule")
    assert screen.text("CirculationControl").startswith(HIT)


def test_blocks_that_this_model_has_not_are_named_on_the_node(graph, screen):
    change(screen, "CirculationControl", "blocks", "double")
    fails(screen)
    assert says_what_is_wrong(screen, "CirculationControl", "'double' selects no block. This model has input.1.0, ")
    assert not screen.widget("CirculationControl").query_selector("span").is_visible()  # of the run before
    change(screen, "CirculationControl", "blocks", "input")
    screen.queue()
    screen.finished()
    assert nothing_wrong(screen, "CirculationControl")
    assert screen.text("CirculationControl").startswith("2 of 6 blocks hit")


def test_a_model_of_another_family_is_named_on_the_node(graph, screen):
    screen.js("""(() => {
        const made = LiteGraph.createNode("OtherFamily");
        made.pos = [0, 1500];
        app.graph.add(made);
        made.connect(0, node("CirculationControl"), "model");
    })()""")
    screen.load(screen.saved())
    fails(screen)
    assert says_what_is_wrong(screen, "CirculationControl", "Circulation cannot patch PixArt models: ")
    screen.js("node('CheckpointLoaderSimple').connect(0, node('CirculationControl'), 'model')")
    screen.queue()
    screen.finished()
    assert nothing_wrong(screen, "CirculationControl")
    assert screen.text("CirculationControl").startswith(HIT)


@pytest.mark.both_renderers
def test_all_of_the_line_can_be_read_beside_the_button(graph, screen):
    screen.queue()
    screen.finished()
    for width in (210, 300, 420):
        screen.js("(n => n.setSize([values[1], n.computeSize()[1]]))(node(values[0]))", "CirculationControl", width)
        screen.look_at("CirculationControl")
        assert screen.overflowing("CirculationControl") == [], width
        line, button, around = screen.js("""(() => {
            const element = widget("CirculationControl");
            const line = element.querySelector("span");
            if (line.scrollHeight > line.clientHeight + 1) return [line.outerHTML];
            return [line, element.querySelector("button"), element].map(part => part.getBoundingClientRect().toJSON());
        })()""")
        assert around["top"] <= line["top"] + 1 and line["bottom"] <= around["bottom"] + 1, width
        assert line["right"] <= button["left"] or line["bottom"] <= button["top"] + 1, width


def test_a_readout_that_waits_for_no_sampler_says_so_itself(graph, screen):
    screen.js("node('StabilityReadout').disconnectInput(node('StabilityReadout').findInputSlot('after'))")
    fails(screen)
    assert says_what_is_wrong(screen, "StabilityReadout", "Connect the latent of the sampler that uses the probe's model")
    screen.reload()
    assert says_what_is_wrong(screen, "StabilityReadout", "Connect the latent of the sampler")


def test_a_node_without_an_element_gets_a_line_and_loses_it_again(graph, screen):
    screen.js("""(() => {
        const made = LiteGraph.createNode("StabilityCompare");
        made.pos = [0, 1500];
        app.graph.add(made);
        for (const slot of [0, 1]) node("StabilityProbe").connect(1, made, slot);
    })()""")
    screen.load(screen.saved())
    fails(screen)
    assert says_what_is_wrong(screen, "StabilityCompare", "stability_1 comes straight from a probe")
    screen.js("values.forEach(slot => node('StabilityReadout').connect(4, node('StabilityCompare'), slot))", 0, 1)
    screen.queue()
    screen.finished()
    assert nothing_wrong(screen, "StabilityCompare")
    assert not screen.js("node('StabilityCompare').widgets?.some(({ element }) => element?.classList.contains('circulation'))")


def test_a_run_that_is_interrupted_says_so(graph, screen):
    change(screen, "KSampler", "steps", 4000)
    screen.queue()
    screen.until("StabilityProbe", lambda step: step > 4)  # older front ends keep what nodes of these numbers had put out
    screen.interrupt()
    assert screen.text("CirculationControl").startswith("Stopped early. 6 of 6 blocks hit")


def test_a_run_from_the_cache_says_so_and_the_probe_has_its_readouts_chart(graph, screen):
    screen.queue()
    screen.finished()
    assert screen.text("CirculationControl").startswith(HIT)
    screen.queue()
    screen.finished()
    cached = "From ComfyUI's cache, not sampled again."  # said once the page has asked whose prompt it was
    screen.wait(lambda: screen.text("CirculationControl").startswith(f"{cached} Last run: {HIT}"))
    saved = screen.saved()
    screen.settle(20)  # till the tab has stored its results
    screen.fresh()
    screen.load(saved)
    assert screen.text("CirculationControl") == "Not run yet."
    assert screen.text("StabilityProbe", ".legend") == "Nothing measured yet."
    screen.queue()
    screen.finished()
    screen.wait(lambda: screen.text("CirculationControl") == cached)
    assert screen.csv("StabilityProbe") == screen.csv("StabilityReadout") != ""


def test_the_blocks_that_were_hit_are_a_click_or_a_key_away(graph, screen, page):
    change(screen, "CirculationControl", "blocks", "input, output.0-1")
    screen.queue()
    screen.finished()
    screen.look_at("CirculationControl", 0.7)  # further away no widget of Nodes 2.0 takes the mouse in 1.32.9
    status = screen.widget("CirculationControl")
    more, shown = status.query_selector("button"), status.query_selector(".list")
    nodes, place = page.evaluate("app.graph.nodes.length"), "[...app.canvas.ds.offset, ...node('CirculationControl').pos]"
    before = screen.js(place)
    for open_it in (more.click, lambda: page.keyboard.press("Enter")):
        more.focus()
        open_it()
        assert shown.is_visible() and shown.inner_text().split() == ["input.1.0", "input.3.0", "output.0.0", "output.1.0"]
        box = shown.bounding_box()
        assert box["x"] >= 0 and box["y"] >= 0 and box["y"] + box["height"] <= page.viewport_size["height"]
        texts, _ = screen.contrasts()
        assert min(texts.values()) >= 4.5, texts
        page.keyboard.press("Escape")
        assert not shown.is_visible()
    assert screen.js(place) == before and page.evaluate("app.graph.nodes.length") == nodes
