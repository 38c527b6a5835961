"""How much a comparison of five alphas with three seeds takes, from the graph that ComfyUI opens with."""

import pytest
from support import front_ends
from support.server import front_end, prompt_of, small

pytestmark = pytest.mark.parametrize("version", [front_ends.OLDEST], indirect=True)

ALPHAS = "1, 1.05, 1.1, 1.2, 1.3"
# Everything that changes the graph is counted.
STEPS = """async actions => {
    const counted = {added: 0, removed: 0, links: 0, edits: 0};
    const the = (type) => app.graph.nodes.find((node) => node.type === type);
    const at = (list, name) => list.findIndex((slot) => slot.name === name);
    const steps = {
        add(type) { const node = LiteGraph.createNode(type); app.graph.add(node); counted.added++; },
        remove(type) { app.graph.remove(the(type)); counted.removed++; },
        link(from, output, to, input) {
            const [one, other] = [the(from), typeof to === "string" ? the(to) : app.graph.getNodeById(to)];
            if (!one.connect(at(one.outputs, output), other, at(other.inputs, input))) throw `no link to ${input}`;
            counted.links++;
        },
        edit(type, name, value) { the(type).widgets.find((widget) => widget.name === name).value = value; counted.edits++; },
    };
    await app.loadGraphData();
    const sampler = the("KSampler");
    const prompts = ["positive", "negative"].map((name) => app.graph.links.get(sampler.inputs[at(sampler.inputs, name)].link).origin_id);
    for (const [step, ...values] of actions) {
        if (step === "prompt") {  // a link from one of two nodes of a type
            const [name, to] = values;
            const node = app.graph.getNodeById(prompts[name === "positive" ? 0 : 1]);
            node.connect(0, the(to), at(the(to).inputs, name));
            counted.links++;
        } else steps[step](...values);
    }
    return counted;
}"""


@pytest.fixture(scope="module")
def page(server):
    with front_end(server) as page:
        yield page


def done(page, actions):
    """What was counted, and the prompt."""
    counted = page.evaluate(STEPS, actions)
    return counted, small(prompt_of(page))


def cells(server, prompt):
    (message,) = (output["comparison"][0] for output in server.run(prompt).values() if "comparison" in output)
    return message["labels"], [len(row) for row in message["cells"]]


LABELS = ["off", *(f"alpha {alpha}, beta 3" for alpha in ("1.05", "1.1", "1.2", "1.3"))]


def test_two_nodes_four_links_and_two_edits_with_sweep_and_sheet(server, page):
    counted, prompt = done(page, [
        ["add", "CirculationSweep"],
        ["add", "ComparisonSheet"],
        ["link", "CheckpointLoaderSimple", "MODEL", "CirculationSweep", "model"],
        ["link", "CirculationSweep", "model", "KSampler", "model"],
        ["link", "VAEDecode", "IMAGE", "ComparisonSheet", "images"],
        ["link", "CirculationSweep", "label", "ComparisonSheet", "labels"],
        ["edit", "CirculationSweep", "alpha", ALPHAS],
        ["edit", "EmptyLatentImage", "batch_size", 3],
    ])  # fmt: skip
    assert counted == {"added": 2, "removed": 0, "links": 4, "edits": 2}
    assert cells(server, prompt) == (LABELS, [3] * 5)


def test_one_node_in_the_place_of_ksampler_and_one_edit_with_the_grid(server, page):
    counted, prompt = done(page, [
        ["add", "CirculationGrid"],
        ["link", "CheckpointLoaderSimple", "MODEL", "CirculationGrid", "model"],
        ["prompt", "positive", "CirculationGrid"],
        ["prompt", "negative", "CirculationGrid"],
        ["link", "EmptyLatentImage", "LATENT", "CirculationGrid", "latent"],
        ["link", "CheckpointLoaderSimple", "VAE", "CirculationGrid", "vae"],
        ["edit", "CirculationGrid", "alpha", ALPHAS],
        *(["remove", type] for type in ("KSampler", "VAEDecode", "SaveImage")),
    ])  # fmt: skip
    assert counted == {"added": 1, "removed": 3, "links": 5, "edits": 1}
    for node in prompt.values():
        if node["class_type"] == "CirculationGrid":
            node["inputs"]["steps"] = 2
    assert cells(server, prompt) == (LABELS, [3] * 5)
