"""End to end: the stability nodes on the real ComfyUI server."""

import asyncio
import contextlib
import csv
import io
import shutil

import folder_paths
import pytest
import safetensors.torch
import torch
from PIL import Image
from support.client import Client, heard, parsed
from support.executor import node
from support.server import demo, started

CHECKPOINT = "sd_xl_base_1.0.safetensors"
PROBE = {"measure_in": "value space", "every_n_steps": 1, "blocks": "all", "branches": "both", "label": "", "tokens": "image"}
EXPANDING = '''
from comfy_execution.graph_utils import GraphBuilder

class SampledInside:
    """A node that expands into a sampler, as loops and pipes do."""
    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "expand", "test"

    @classmethod
    def INPUT_TYPES(cls):
        inputs = {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT", "seed": "INT"}
        return {"required": {name: (kind, {"max": 2**32}) for name, kind in inputs.items()}}

    def expand(self, **inputs):
        graph = GraphBuilder()
        settings = dict(steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0)
        return {"result": (graph.node("KSampler", **inputs, **settings).out(0),), "expand": graph.finalize()}

NODE_CLASS_MAPPINGS = {"SampledInside": SampledInside}
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with started(tmp_path_factory.mktemp("comfyui"), code=EXPANDING) as server:
        yield server


# --- prompts, put together from these


MODEL = {  # in every prompt, so that ComfyUI keeps it loaded
    "model": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
    "positive": node("CLIPTextEncode", clip=["model", 1], text="a street musician"),
    "negative": node("CLIPTextEncode", clip=["model", 1], text="blurry"),
    "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
}


def probe(label, model="model", **inputs):
    """A label that no other test has makes the probe one that no other test has filled."""
    return node("StabilityProbe", model=[model, 0], **{**PROBE, "label": label, **inputs})


def sampler(seed, model="probe", latent="latent", class_type="KSampler", **inputs):
    settings = dict(steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0) if class_type == "KSampler" else {}
    links = dict(model=[model, 0], positive=["positive", 0], negative=["negative", 0], latent_image=[latent, 0])
    return node(class_type, seed=seed, **links, **{**settings, **inputs})


def readout(after="sampler", probe="probe", name="readout", **inputs):
    """A readout, with its summary and its table as texts."""
    links = {"stability": [probe, 1] if isinstance(probe, str) else probe, **({"after": [after, 0]} if after else {})}
    return {
        name: node("StabilityReadout", **{"plot": "curves", "measure": "energy", **inputs, **links}),
        f"{name} summary": node("PreviewAny", source=[name, 2]),
        f"{name} table": node("PreviewAny", source=[name, 3]),
    }


def run(server, **nodes):
    return server.run({**MODEL, **nodes})


def table(outputs, name="readout"):
    return list(csv.DictReader(io.StringIO(outputs[f"{name} table"]["text"][0])))


def values(rows):
    """Rows without what says whose they are."""
    return [{key: row[key] for key in row if key not in ("run", "label")} for row in rows]


def runs(rows):
    return sorted({row["run"] for row in rows})


def measured_alone(server, label, seed, **inputs):
    """What a graph of one probe and one sampler measures."""
    outputs = run(server, probe=probe(label), sampler=sampler(seed, **inputs), **readout())
    return values(table(outputs))


def figure(server, outputs, name="readout"):
    return Image.open(io.BytesIO(server.image(outputs[name]["images"][0])))


def stability(messages):
    return [parsed(message)["data"] for message in messages if parsed(message)["type"] == "circulation.stability"]


def outputs_in(messages):
    """What the nodes of a prompt have put out, from the messages of the run or from the cache."""
    executed = [parsed(message)["data"] for message in messages if parsed(message)["type"] == "executed"]
    return {data["node"]: data["output"] for data in executed}


# --- which run belongs to a readout


def test_nothing_changed_gives_the_same_outputs_from_the_cache(server):
    prompt = {**MODEL, "probe": probe("cache"), "sampler": sampler(1), **readout()}
    first, second = heard(server, prompt), heard(server, prompt)
    assert outputs_in(first) == outputs_in(second)
    assert stability(first) != [] == stability(second)
    assert runs(table(outputs_in(second))) == ["1"]


def test_another_plot_of_a_cached_run_shows_that_run(server):
    nodes = dict(probe=probe("another plot"), sampler=sampler(1))
    first, second = (run(server, **nodes, **readout(plot=plot)) for plot in ("curves", "heat map"))
    assert first["readout"] != second["readout"] and table(first) == table(second)


def test_a_changed_seed_shows_only_the_new_run(server):
    first, second = (table(run(server, probe=probe("seed"), sampler=sampler(seed), **readout())) for seed in (1, 2))
    assert runs(second) == ["1"] and first != second
    assert values(second) == measured_alone(server, "seed 2 alone", 2)


def test_two_samplers_on_one_model_have_each_its_readout(server):
    nodes = dict(probe=probe("two samplers"), one=sampler(1), two=sampler(2))
    nodes |= readout("one", name="of one") | readout("two", name="of two")
    outputs = run(server, **nodes)
    for name, seed in (("of one", 1), ("of two", 2)):
        assert runs(table(outputs, name)) == ["1"]
        assert values(table(outputs, name)) == measured_alone(server, f"{name} alone", seed)


def test_like_probes_on_two_branches_have_each_its_record(server):
    nodes = dict(one=probe("branches"), two=probe("branches"), first=sampler(1, "one"), second=sampler(2, "two"))
    messages = heard(server, {**MODEL, **nodes, **readout("first", "one", "of one"), **readout("second", "two", "of two")})
    told = [event["node"] for event in stability(messages)]
    assert told in (["one", "one", "two", "two"], ["two", "two", "one", "one"])  # which comes first, ComfyUI leaves open
    outputs = outputs_in(messages)
    for name, seed in (("of one", 1), ("of two", 2)):
        assert values(table(outputs, name)) == measured_alone(server, f"{name}, branch alone", seed)


def test_two_samplers_in_sequence_are_two_runs_of_one_record(server):
    def sampled(second_seed):
        nodes = dict(probe=probe("sequence"), one=sampler(1), two=sampler(second_seed, latent="one", denoise=0.5, steps=3))
        rows = table(run(server, **nodes, **readout("two")))
        assert runs(rows) == ["1", "2"]
        return [values(row for row in rows if row["run"] == number) for number in ("1", "2")]

    one, two = sampled(2)
    assert one == measured_alone(server, "first of sequence", 1)
    assert {row["step"] for row in two} == {"1", "2", "3"}
    one_again, other_two = sampled(3)
    assert one_again == one and other_two != two


def test_a_run_can_be_chosen_and_one_that_is_missing_is_named(server):
    nodes = dict(probe=probe("choice"), one=sampler(1), two=sampler(2, latent="one"))
    outputs = run(server, **nodes, **readout("two"), **readout("two", name="first", run=1))
    assert figure(server, outputs).tobytes() != figure(server, outputs, "first").tobytes()
    with pytest.raises(demo.ServerError, match="run is 3, but the model was sampled 2 times"):
        run(server, **nodes, **readout("two", run=3))


def test_a_sampler_that_another_node_expands_into_counts_as_that_node(server):
    for seed in (1, 2):
        inside = run(server, probe=probe("expanded"), sampler=sampler(seed, class_type="SampledInside"), **readout())
        assert runs(table(inside)) == ["1"]
        assert values(table(inside)) == measured_alone(server, f"not expanded {seed}", seed)


def test_colons_in_ids_are_ids_in_subgraphs(server):
    nodes = {"10:1": probe("colons"), "10:2": sampler(1, "10:1"), "11:3:4": sampler(2, "10:1")}
    outputs = run(server, **nodes, **readout("10:2", "10:1", "12:5"), **readout("11:3:4", "10:1", "6"))
    for name, seed in (("12:5", 1), ("6", 2)):
        assert values(table(outputs, name)) == measured_alone(server, f"no colons {seed}", seed)


def test_after_takes_and_passes_on_a_latent_or_an_image(server):
    nodes = dict(probe=probe("passing"), sampler=sampler(1), decoded=node("VAEDecode", samples=["sampler", 0], vae=["model", 2]))
    nodes |= readout("sampler", name="of latent") | readout("decoded", name="of image")
    nodes["passed latent"] = node("VAEDecode", samples=["of latent", 0], vae=["model", 2])
    shown = {name: node("PreviewImage", images=[name, 0]) for name in ("decoded", "passed latent", "of image")}
    outputs = run(server, **nodes, **{f"show {name}": shown[name] for name in shown})
    assert table(outputs, "of latent") == table(outputs, "of image") != []
    pictures = [figure(server, outputs, f"show {name}").tobytes() for name in shown]
    assert pictures[0] == pictures[1] == pictures[2]


def test_a_readout_that_waits_for_no_sampler_is_refused(server):
    nodes = dict(probe=probe("no after"), sampler=sampler(1), show=node("VAEDecode", samples=["sampler", 0], vae=["model", 2]))
    nodes["shown"] = node("PreviewImage", images=["show", 0])
    for _ in range(2):  # also when an earlier run is there
        with pytest.raises(demo.ServerError, match="Connect the latent of the sampler.* to 'after'"):
            run(server, **nodes, **readout(after=None))


def test_where_nothing_was_sampled_the_latent_comes_out_and_the_graph_says_so(server):
    decoded = node("VAEDecode", samples=["readout", 0], vae=["model", 2])
    outputs = run(server, probe=probe("not sampled"), sampler=sampler(1, denoise=0.0), decoded=decoded,
                  image=node("PreviewImage", images=["decoded", 0]), **readout())  # fmt: skip
    assert outputs["readout summary"]["text"][0].startswith("Nothing was sampled with this probe's model")
    assert table(outputs) == [] and figure(server, outputs).width == 1024 and figure(server, outputs, "image").width == 64


# --- files


def saved(server, label, prefix, seed=1):
    """Sample, save under a prefix, and give the table."""
    nodes = dict(probe=probe(label), sampler=sampler(seed), save=node("SaveStability", stability=["readout", 4], filename_prefix=prefix))
    outputs = run(server, **nodes, **readout())
    return outputs["save"]["text"][0], table(outputs)


def loaded(file):
    return node("LoadStability", file=file)


def test_records_come_back_from_files_and_can_be_compared(server):
    first_note, first = saved(server, "saved", "records/deep/run %year%", seed=1)
    second_note, second = saved(server, "saved", "records/deep/run %year%", seed=2)
    files = sorted(path.relative_to(server.base / "output") for path in (server.base / "output" / "records").rglob("*.*"))
    assert [path.name.split("_")[1] for path in files] == ["00001", "00002"] and "%" not in files[0].name
    assert first_note == f"Saved {files[0]}" and second_note == f"Saved {files[1]}"
    nodes = {"one": loaded(str(files[0])), "two": loaded(str(files[1]))}
    nodes["compare"] = node("StabilityCompare", stability_1=["one", 0], stability_2=["two", 0])
    outputs = run(server, **nodes, **readout(None, ["one", 0], "of one"), **readout(None, ["two", 0], "of two"))
    assert table(outputs, "of one") == first and table(outputs, "of two") == second
    assert figure(server, outputs, "compare").width == 1024


def test_a_file_that_changed_is_read_again_and_the_input_folder_comes_first(server):
    mine = server.base / "input" / "mine"
    mine.mkdir()
    records = [saved(server, "overwritten", "mine/record", seed) for seed in (1, 2)]
    for note, measured in reversed(records):
        shutil.copy(server.base / "output" / note.removeprefix("Saved "), mine / "record_00001_.safetensors")
        outputs = run(server, load=loaded("mine/record_00001_.safetensors"), **readout(None, ["load", 0]))
        assert table(outputs) == measured


@pytest.fixture(scope="module")
def outside(server):
    """A folder beside ComfyUI's with a good record, and links from inside to both."""
    note, _ = saved(server, "outside", "outside")
    folder = server.base / "elsewhere"
    folder.mkdir()
    shutil.move(server.base / "output" / note.removeprefix("Saved "), folder / "x.safetensors")
    (server.base / "input" / "link.safetensors").symlink_to(folder / "x.safetensors")
    (server.base / "output" / "linked").symlink_to(folder)
    return folder


@pytest.mark.parametrize(
    "file",
    ["../elsewhere/x.safetensors", "a/../../elsewhere/x.safetensors", "{outside}/x.safetensors", "none", ""],
)
def test_no_file_outside_the_folders_is_read_and_the_prompt_does_not_start(server, outside, file):
    with pytest.raises(demo.ServerError, match="LoadStability.*There is no file") as refused:
        run(server, load=loaded(file.format(outside=outside)), **readout(None, ["load", 0]))
    assert "Custom validation failed" in str(refused.value)


@pytest.mark.skipif(hasattr(folder_paths, "is_within_directory"), reason="this ComfyUI follows no link that leads out of its folders")
@pytest.mark.parametrize("file", ["link.safetensors", "linked/x.safetensors"])
def test_a_link_in_a_folder_is_followed_as_other_nodes_do(server, outside, file):
    assert table(run(server, load=loaded(file), **readout(None, ["load", 0])))


@pytest.mark.parametrize("prefix", ["../elsewhere/y", "{outside}/y"])
def test_no_file_outside_the_output_folder_is_written(server, outside, prefix):
    with pytest.raises(demo.ServerError, match="SaveStability: filename_prefix .* leads out of the output folder"):
        saved(server, "no escape", prefix.format(outside=outside))
    assert [path.name for path in outside.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("content, words", [
    (b"\x80\x04not tensors", "not a readable stability record"),
    (safetensors.torch.save({"weight": torch.zeros(3)}), "is not a stability record"),
    (safetensors.torch.save({"x": torch.zeros(1)}, {"format": "circulation-stability", "version": "99", "runs": "[]"}), "has format 99"),
], ids=["damaged", "foreign", "newer"])  # fmt: skip
def test_a_file_that_is_no_record_is_an_error_and_the_queue_goes_on(server, content, words):
    (server.base / "input" / "bad.safetensors").write_bytes(content)
    with pytest.raises(demo.ServerError, match=f"LoadStability: .*{words}"):
        run(server, load=loaded("bad.safetensors"), **readout(None, ["load", 0]))
    assert measured_alone(server, f"after {words}", 1)


# --- while sampling


@pytest.mark.parametrize("name, evaluations", [("euler", 4), ("heun", 7), ("dpmpp_sde", 7)])
def test_the_tab_that_queued_and_no_other_gets_one_small_event_a_step(server, name, evaluations):
    prompt = {**MODEL, "probe": probe(f"events {name}"), "sampler": sampler(1, steps=4, sampler_name=name), **readout()}

    async def scenario():
        async with Client(server, "mine") as mine, Client(server, "other") as other:
            return await mine.run(prompt), await other.run({**prompt, "another": node("PreviewAny", source=name)})

    mine, others = asyncio.run(scenario())
    events = stability(mine)
    assert [event["step"] for event in events] == [1, 2, 3, 4]
    assert all(event["node"] == "probe" and event["steps"] == 4 for event in events)
    assert all(len(message.encode()) <= 8000 for message in mine if "circulation.stability" in message)
    assert stability(others) == []
    assert int(table(outputs_in(others))[-1]["evaluation"]) == evaluations


@pytest.mark.parametrize("extra, graph", [
    ({"extra_pnginfo": {"workflow": {"id": "a graph", "nodes": []}}}, "a graph"),
    ({"extra_pnginfo": {"workflow": {"nodes": []}}}, None),
    ({"extra_pnginfo": None}, None),
    ({}, None),
])  # fmt: skip
def test_an_event_names_the_graph_that_was_queued(server, extra, graph):
    prompt = {**MODEL, "probe": probe(str(extra)), "sampler": sampler(1), **readout()}

    async def scenario():
        async with Client(server, "mine") as mine:
            return await mine.run(prompt, extra_data=extra)

    assert {event["graph"] for event in stability(asyncio.run(scenario()))} == {graph}


@pytest.mark.parametrize("extra, graph", [({"extra_pnginfo": {"workflow": {"id": "a graph", "nodes": []}}}, "a graph"), ({}, None)])
def test_a_tab_hears_of_each_prompt_which_nodes_are_refused_and_why(server, extra, graph):
    wrong = {"probe": probe("refused", blocks="midle"), "painted": node("CirculationSchedule", grid="[]")}
    good = {**MODEL, "probe": probe("not refused"), "sampler": sampler(1), **readout()}

    async def scenario():
        async with Client(server, "mine") as mine:
            for prompt in ({**good, **wrong}, {**good, "other": node("Nowhere")}, {"odd": 1}):
                with contextlib.suppress(demo.ServerError):
                    await mine.queue(prompt, extra_data=extra)
            return await mine.run(good, extra_data=extra)

    messages = list(map(parsed, asyncio.run(scenario())))
    first, *others = [message["data"] for message in messages if message["type"] == "circulation.refused"]
    assert first["nodes"].keys() == wrong.keys() and first["graph"] == graph
    assert first["nodes"]["probe"].endswith("Did you mean middle?") and first["nodes"]["painted"].startswith("grid: ")
    assert others == [{"graph": graph, "nodes": {}}] * 2  # what is no prompt at all is left to ComfyUI


def test_a_readout_names_its_probe_which_may_have_heard_of_no_run(server):
    prompt = {**MODEL, "probe": probe("named"), "sampler": sampler(1), **readout()}
    for messages in (heard(server, prompt), heard(server, prompt)):
        assert outputs_in(messages)["readout"]["stability"][0]["probe"] == "probe"


def test_what_was_not_measured_is_null_in_events(server):
    tiled = node("HyperTile", model=["model", 0], tile_size=32, swap_size=2, max_depth=0, scale_depth=False)
    nodes = dict(tiled=tiled, probe=probe("null", "tiled", blocks="input.2, output"), sampler=sampler(1))
    nodes["latent"] = node("EmptyLatentImage", width=128, height=128, batch_size=1)
    events = stability(heard(server, {**MODEL, **nodes, **readout()}))
    assert [event["stages"]["input"] for event in events] == [[None] * 5] * 2
    assert None not in [value for event in events for value in event["stages"]["output"]]


def test_no_tab_hears_of_a_prompt_that_none_has_queued(server):
    async def scenario():
        async with Client(server, "listening") as tab:
            measured = await asyncio.to_thread(measured_alone, server, "no tab", 1)
            return measured, await tab.run({**MODEL, "show": node("PreviewAny", source="the end")})

    measured, messages = asyncio.run(scenario())
    assert measured and stability(messages) == []


def test_an_interrupted_run_leaves_what_was_measured_and_the_queue_goes_on(server):
    nodes = dict(probe=probe("interrupted"), sampler=sampler(1, steps=2000))

    async def interrupted():
        async with Client(server, "mine") as tab:
            await tab.queue({**MODEL, **nodes, **readout()})
            await tab.until("circulation.stability")
            await asyncio.to_thread(server.post, "/interrupt", {})
            await tab.until("execution_interrupted")

    asyncio.run(interrupted())
    without_sampler = run(server, probe=nodes["probe"], **readout(after=None))
    assert "stopped early" in without_sampler["readout summary"]["text"][0]
    steps = {int(row["step"]) for row in table(without_sampler)}
    assert 1 in steps and len(steps) < 2000
    assert figure(server, without_sampler).width == 1024
    outputs = run(server, probe=nodes["probe"], sampler=sampler(1, steps=3), **readout())
    assert "stopped early" not in outputs["readout summary"]["text"][0]
    assert runs(table(outputs)) == ["1"] and {int(row["step"]) for row in table(outputs)} == {1, 2, 3}
