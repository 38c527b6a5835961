"""End to end: Circulation Sweep and Circulation Grid on the real ComfyUI server, with both of its caches."""

import asyncio
import copy
import io
import re

import pytest
from PIL import Image
from support.client import Client, heard, parsed
from support.executor import node
from support.server import demo, started

COUNTING = """
import nodes

original = nodes.common_ksampler

def counted(model, seed, *args, **kwargs):
    print(f"sampled with seed {seed}", flush=True)
    return original(model, seed, *args, **kwargs)

nodes.common_ksampler = counted
NODE_CLASS_MAPPINGS = {}
"""


@pytest.fixture(scope="module", params=[["--cache-classic"], ["--cache-lru", "200"]], ids=["classic", "lru"])
def server(request, tmp_path_factory):
    with started(tmp_path_factory.mktemp("comfyui"), *request.param, code=COUNTING) as server:
        yield server


SAMPLER = {"steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
MODEL = {
    "model": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
    "positive": node("CLIPTextEncode", clip=["model", 1], text="a street musician"),
    "negative": node("CLIPTextEncode", clip=["model", 1], text="blurry"),
    "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
}


def grid(alpha="1, 1.05, 1.1, 1.2, 1.3", **inputs):
    links = {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent": ["latent", 0], "vae": ["model", 2]}
    values = {"alpha": alpha, "beta": "3", "seed": 40, "seeds": 3, **SAMPLER}
    return copy.deepcopy({**MODEL, "grid": node("CirculationGrid", **links, **{**values, **inputs})})


def plain(seed, circulation="CirculationControl", **inputs):
    """What the grid's cells are compared with: one Circulation node and ComfyUI's own."""
    links = {"model": ["circulation", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
    where = {"start_percent": 0.0, "end_percent": 1.0, "blocks": "all"}
    return copy.deepcopy({
        **MODEL,
        "circulation": node(circulation, model=["model", 0], **{**where, **inputs}),
        "sampled": node("KSampler", seed=seed, **SAMPLER, **links),
        **saved(["decoded", 0]),
        "decoded": node("VAEDecode", samples=["sampled", 0], vae=["model", 2]),
    })  # fmt: skip


def saved(images):
    return {"saved": node("SaveImage", images=images, filename_prefix="image")}


def files(server, prompt):
    return [server.image(image) for image in server.run(prompt)["saved"]["images"]]


def sampled(server, prompt, then=None):
    """How often a sampler runs in a prompt."""
    before = server.log.stat().st_size
    try:
        (then or server.run)(prompt)
    finally:
        text = server.log.read_bytes()[before:]
    return len(re.findall(rb"sampled with seed", text))


def test_each_cell_is_the_image_of_its_setting_and_seed_alone(server):
    cells = files(server, {**grid("1, 1.05, 1.2", beta="3, 5", seeds=2, method="one pass"), **saved(["grid", 4])})
    alone = [{"alpha": 1.0, "beta": 3.0}, *({"alpha": alpha, "beta": beta} for alpha in (1.05, 1.2) for beta in (3.0, 5.0))]
    assert cells == [files(server, plain(seed, **setting, method="one pass"))[0] for setting in alone for seed in (40, 41)]
    assert len(set(cells)) == 10


def test_a_grid_takes_all_that_circulation_does(server):
    options = {"start_percent": 0.0, "end_percent": 0.5, "blocks": "output", "branches": "positive", "rescale": "off", "tokens": "all"}
    painted = {"schedule": ["painted", 0]}, {"painted": node("CirculationSchedule", grid='{"grid": [[1.5, 1], [1, 0.5]]}')}
    cells = files(server, {**grid("1.3", seeds=1, **options, **painted[0]), **painted[1], **saved(["grid", 4])})
    expected = files(server, {**plain(40, alpha=1.3, beta=3.0, **options, **painted[0]), **painted[1]})
    assert cells[1:] == expected != files(server, plain(40, alpha=1.3, beta=3.0))
    assert cells[:1] == files(server, plain(40, alpha=1.0, beta=3.0))


def test_a_sweep_samples_each_setting_once(server):
    prompt = plain(41, "CirculationSweep", alpha="1, 1.05, 1.2", beta="3")
    prompt["labels"] = node("PreviewAny", source=["circulation", 1])
    images = []
    assert sampled(server, prompt, lambda prompt: images.extend(files(server, prompt))) == 3
    assert images == [files(server, plain(41, alpha=alpha, beta=3.0))[0] for alpha in (1.0, 1.05, 1.2)]


def test_only_what_is_new_is_sampled(server):
    first = sampled(server, grid(seed=100))
    assert first == 15
    assert sampled(server, grid(seed=100)) == 0
    assert sampled(server, grid("1, 1.05, 1.15, 1.2, 1.3", seed=100)) == 3  # one alpha changed
    assert sampled(server, grid("1, 1.05, 1.15, 1.2, 1.3", seed=100, seeds=4)) == 5  # one seed added
    assert sampled(server, grid("1, 1.05, 1.15, 1.2, 1.3", seed=100)) == 0
    alphas = "1, 1.05, 1.15, 1.18, 1.2, 1.3"
    assert sampled(server, grid(alphas, seed=100)) == 3  # one alpha in the middle
    assert sampled(server, grid(alphas, seed=100, cell=128, sort_columns=True, difference_row=True)) == 0  # options of the sheet
    assert sampled(server, grid("1.3, 1.05, 1.15, 1.18, 1.2", seed=100)) == 0  # another order
    assert sampled(server, grid("1.3, 1.05", seed=100, baseline=False)) == 0
    assert sampled(server, grid("1.3, 1.05", seed=99, baseline=False)) == 2  # seeds 99 to 101: only the first is new


def test_off_is_kept_whatever_the_others_are(server):
    assert sampled(server, grid("1.05, 1.1", seed=150, seeds=2)) == 6
    changed = dict(blocks="output", method="one pass", beta="5", end_percent=0.5, rescale="off", branches="positive")
    assert sampled(server, grid("1.05, 1.1", seed=150, seeds=2, **changed)) == 4


def test_a_beta_of_several_is_changed_and_only_its_rows_are_sampled(server):
    assert sampled(server, grid("1.05, 1.1", beta="3, 5", seed=200, seeds=2)) == 10
    assert sampled(server, grid("1.05, 1.1", beta="3, 4", seed=200, seeds=2)) == 4


def shown(messages):
    """What the grid is sent to show, in order."""
    executed = [parsed(message)["data"] for message in messages if parsed(message)["type"] == "executed"]
    return [data["output"] for data in executed if data["display_node"] == "grid" and data["output"]]


def test_each_cell_is_shown_when_it_is_there_and_then_the_sheet(server):
    prompt = grid("1.05", seed=300, seeds=2)
    outputs = shown(messages := heard(server, prompt))
    places = [(output["cell"][0]["row"], output["cell"][0]["column"]) for output in outputs[:-1]]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]
    last = {"label": "alpha 1.05, beta 3", "seed": 301, "row": 1, "column": 1, "rows": 2, "columns": 2}
    (cell,) = outputs[3]["cell"]
    (picture,) = cell.pop("pictures")
    assert cell == last
    assert Image.open(io.BytesIO(server.image(picture))).size == (64, 64)
    assert outputs[-1]["comparison"][0]["labels"] == ["off", "alpha 1.05, beta 3"]
    # cells come while others are still to be sampled
    ran = [parsed(m)["data"].get("node") or "" for m in messages if parsed(m)["type"] == "executing"]
    assert [id.rpartition(", ")[2] for id in ran if "seed" in id] == ["sampled", "decoded", "shown"] * 4
    steps = [parsed(m)["data"] for m in messages if parsed(m)["type"] == "progress" and parsed(m)["data"]["node"] == "grid"]
    assert [(step["value"], step["max"]) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_cell_of_a_batch_has_small_pictures_of_all_its_images(server):
    prompt = grid("1.05", seed=350, seeds=1, baseline=False)
    prompt["latent"]["inputs"].update(width=512, height=256, batch_size=2)
    (cell,) = shown(heard(server, prompt))[0]["cell"]
    assert [Image.open(io.BytesIO(server.image(picture))).size for picture in cell["pictures"]] == [(256, 128)] * 2


def test_cells_from_the_cache_are_shown_again(server):
    prompt = grid("1.05", seed=400, seeds=2)
    first = shown(heard(server, prompt))
    prompt["grid"]["inputs"]["cell"] = 128
    assert shown(heard(server, prompt))[:-1] == first[:-1]


def test_of_an_interrupted_grid_the_done_cells_are_shown_and_kept(server):
    prompt = grid("1, 1.05, 1.1, 1.2, 1.3", seed=500, steps=6)

    async def scenario():
        async with Client(server, "tab") as tab:
            await tab.queue(prompt)
            messages = [*await tab.until("executed"), *await tab.until("executed")]
            await asyncio.to_thread(server.post, "/interrupt", {})
            return [*messages, *await tab.until("execution_interrupted")]

    done = len(shown(asyncio.run(scenario())))
    assert 2 <= done < 15
    assert sampled(server, prompt) == 15 - done


@pytest.mark.parametrize("id", ["grid", "sweep"])
@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"alpha": "1, x"}, "'x'"),
        ({"alpha": "1:2:0"}, "'1:2:0'"),
        ({"alpha": "1,05"}, "'1,05' has a comma"),
        ({"alpha": "0:0.64:0.01"}, "65 numbers"),
        ({"beta": " "}, "beta is empty"),
        ({"blocks": "midle"}, "Did you mean middle?"),
    ],
)
def test_a_wrong_text_is_refused_and_named(server, id, wrong, named):
    prompt = grid(**wrong) if id == "grid" else plain(40, "CirculationSweep", **{"alpha": "1", "beta": "3", **wrong})
    with pytest.raises(demo.ServerError, match=re.escape(named)):
        server.queue(prompt)


@pytest.mark.parametrize("wrong, named", [({"alpha": ["text", 0]}, "'x'"), ({"blocks": "input.99"}, "input.99")])
def test_what_comes_by_a_link_is_refused_before_anything_is_sampled(server, wrong, named):
    prompt = {**grid(**{"seed": 600, **wrong}), "text": node("StringConcatenate", string_a="1, ", string_b="x", delimiter="")}

    def refused(prompt):
        with pytest.raises(demo.ServerError, match=named):
            server.run(prompt)

    assert sampled(server, prompt, refused) == 0


def test_without_a_link_nothing_is_queued(server):
    for missing in ("model", "positive", "negative", "latent", "vae"):
        prompt = grid()
        del prompt["grid"]["inputs"][missing]
        with pytest.raises(demo.ServerError, match=missing):
            server.queue(prompt)
