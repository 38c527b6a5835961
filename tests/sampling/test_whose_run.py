"""A Readout shows the run of its own prompt and of its own call, or says that there is none. With ComfyUI's own executor."""

import csv
import io

import execution
import pytest
import torch
from support.executor import node
from support.host import engine

record, EMPTY = engine("records.record"), engine("comfy.readout").EMPTY
CACHES = [execution.CacheType.CLASSIC, execution.CacheType.LRU]


def prompt(sampler=None, after=("7", 0), batch=1, readout=None, **others):
    """A probe, 6, its sampler, 7, and its Readout, 8, of which all outputs are kept."""
    return {
        "1": node("Model"),
        "2": node("Prompt", seed=1),
        "3": node("Prompt", seed=2),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=batch),
        "6": node("StabilityProbe", model=["1", 0], measure_in="value space", every_n_steps=1, blocks="all"),
        "7": sampler or sampler_node(),
        "8": node("StabilityReadout", stability=["6", 1], after=list(after), **{"plot": "curves", "measure": "energy", **(readout or {})}),
        "9": node("Keep", id="9", after=["8", 0], graph=["8", 1], summary=["8", 2], data=["8", 3], stability=["8", 4]),
        "latent": node("Keep", id="latent", latent=["7", 0]),
        **others,
    }


def sampler_node(model="6", latent="4", **inputs):
    settings = dict(seed=1, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    return node("KSampler", model=[model, 0], positive=["2", 0], negative=["3", 0], latent_image=[latent, 0], **{**settings, **inputs})


def advanced(**inputs):
    settings = dict(add_noise="enable", noise_seed=1, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", start_at_step=0,
                    end_at_step=10000, return_with_leftover_noise="disable")  # fmt: skip
    links = dict(model=["6", 0], positive=["2", 0], negative=["3", 0], latent_image=["4", 0])
    return node("KSamplerAdvanced", **links, **{**settings, **inputs})


def shown(executor, prompt):
    """What comes out of the Readout in each of its calls."""
    return executor.run(prompt)["9"]


def rows(readout):
    return list(csv.DictReader(io.StringIO(readout["data"])))


def is_empty(readout):
    assert readout["summary"] == EMPTY and readout["after"] is not None
    assert rows(readout) == [] and readout["data"].startswith("run,label,evaluation")
    assert readout["stability"].runs == ()
    return readout["graph"].shape[2:] == (1024, 3) and (readout["graph"] < 0.5).any()


@pytest.mark.parametrize("then", [
    sampler_node("1", seed=5, steps=3),
    sampler_node(denoise=0.0),
    advanced(start_at_step=2),
    advanced(start_at_step=1, end_at_step=1),
], ids=["sampler off the probe", "denoise 0", "start at the end", "start = end"])  # fmt: skip
def test_a_sampler_that_does_not_sample_the_probe_now_has_an_empty_graph(executor, then):
    (first,) = shown(executor, prompt())
    assert len(first["stability"].runs) == 1
    kept = executor.run(prompt(then))
    assert is_empty(kept["9"][0])
    assert kept["9"][0]["after"]["samples"].shape == (1, 4, 8, 8)


def test_a_sampler_that_is_off_the_probe_does_not_count_where_no_queue_is_known(executor):
    executor.prompt_queue = None
    (first,) = shown(executor, prompt())
    assert first["stability"].runs[0].info.signature is None
    assert is_empty(shown(executor, prompt(sampler_node("1", seed=5)))[0])


def test_a_sampler_without_a_step_hands_its_latent_on(executor):
    (readout,) = shown(executor, prompt(sampler_node(denoise=0.0)))
    assert is_empty(readout)


def test_a_readout_without_after_is_refused_where_the_model_is_sampled(executor):
    graph = prompt()
    del graph["8"]["inputs"]["after"]
    with pytest.raises(RuntimeError, match="Connect the latent of the sampler"):
        executor.run(graph)


@pytest.mark.parametrize("executor", CACHES, ids=str, indirect=True)
def test_a_run_from_the_cache_is_shown_again(executor):
    (first,) = shown(executor, prompt())
    (again,) = shown(executor, prompt(readout={"plot": "heat map"}))
    assert rows(again) == rows(first) and not torch.equal(again["graph"], first["graph"])


@pytest.mark.parametrize("executor", [execution.CacheType.LRU], indirect=True)
def test_a_result_from_before_the_last_comes_with_its_own_run(executor):
    """A cache that keeps more than the last prompt gives the first latent again, and the sampler does not run."""
    first, second = (shown(executor, prompt(sampler_node(seed=seed)))[0] for seed in (1, 2))
    (again,) = shown(executor, prompt(sampler_node(seed=1), readout={"plot": "heat map"}))
    assert rows(again) == rows(first) != rows(second)


def test_each_call_of_a_list_shows_its_own_run(executor):
    readouts = shown(executor, prompt(sampler_node(seed=["seeds", 0]), seeds=node("List", values={"list": [1, 2, 3]})))
    assert [[run.info.seed for run in readout["stability"].runs] for readout in readouts] == [[1], [2], [3]]
    for seed, readout in enumerate(readouts, 1):
        (alone,) = shown(executor, prompt(sampler_node(seed=seed)))
        assert rows(readout) == rows(alone)


def test_latents_of_a_batch_sampled_one_by_one_have_each_its_run(executor):
    split = node("RebatchLatents", latents=["4", 0], batch_size=1)
    readouts = shown(executor, prompt(sampler_node(latent="split"), batch=3, split=split))
    assert [[run.info.call for run in readout["stability"].runs] for readout in readouts] == [[0], [1], [2]]


def test_of_a_list_that_is_put_together_again_all_runs_are_there(executor):
    graph = prompt(sampler_node(seed=["seeds", 0]), after=("join", 0), seeds=node("List", values={"list": [1, 2, 3]}))
    graph["join"] = node("RebatchLatents", latents=["7", 0], batch_size=3)
    (readout,) = shown(executor, graph)
    assert [run.info.seed for run in readout["stability"].runs] == [1, 2, 3]


def test_one_run_is_shown_by_every_call_of_a_readout(executor):
    graph = prompt(readout={"measure": ["measures", 0]}, measures=node("List", values={"list": ["energy", "eta"]}))
    readouts = shown(executor, graph)
    assert len(readouts) == 2 and [len(readout["stability"].runs) for readout in readouts] == [1, 1]


def test_a_curve_of_two_points_is_no_link(executor):
    graph = prompt(after=("curved", 0), curved=node("Curve", curve=[[0, 0], [1, 1]], latent=["7", 0]))
    (readout,) = shown(executor, graph)
    assert len(readout["stability"].runs) == 1


def test_a_prompt_that_another_node_has_changed_counts_as_it_was_queued(executor, monkeypatch):
    """Nodes that resolve a value write it into the prompt that all nodes are given."""
    graph = prompt(after=("changing", 0), changing=node("Curve", curve=0, latent=["7", 0]))
    changing = executor.classes["Curve"]
    monkeypatch.setattr(changing, "run", lambda self, curve, latent: graph["7"]["inputs"].update(seed=99) or (latent,))
    (readout,) = shown(executor, graph)
    assert len(readout["stability"].runs) == 1


@pytest.mark.parametrize("class_type, inputs", [
    ("SaveStability", {"stability": ["8", 4], "filename_prefix": "x"}),
    ("StabilityCompare", {"stability_1": ["8", 4], "stability_2": ["8", 4]}),
])  # fmt: skip
def test_an_empty_record_is_refused_where_a_run_is_needed(executor, class_type, inputs):
    graph = prompt(sampler_node(denoise=0.0), needs=node(class_type, **inputs), shown=node("Keep", id="x", of=["needs", 0]))
    with pytest.raises(RuntimeError, match="stability(_1)? is empty: nothing was sampled"):
        executor.run(graph)


# --- what tells nodes apart


def test_a_signature_follows_classes_values_and_links_but_not_ids():
    signature = engine("comfy.prompt").signature
    graph = {"1": node("A", x=1), "2": node("B", first=["1", 0], second=["1", 1]), "3": node("C", of=["2", 0])}
    renamed = {"x": node("A", x=1), "y": node("B", second=["x", 1], first=["x", 0]), "z": node("C", of=["y", 0])}
    assert signature(graph, "3") == signature(renamed, "z")
    others = [
        {**graph, "1": node("A", x=2)},
        {**graph, "1": node("D", x=1)},
        {**graph, "2": node("B", first=["1", 1], second=["1", 0])},
        {**graph, "2": node("B", first=["1", 0])},
        {**graph, "3": node("C", of=["2", 1])},
        {**graph, "3": node("C", of=["missing", 0])},
        {**graph, "1": node("A", x=[[0, 0], [1, 1]])},
        {**graph, "1": node("A", x={1: object})},
        {**graph, "1": node("A", x=["3", 0])},  # a loop
    ]
    assert len({signature(graph, "3"), *(signature(other, "3") for other in others)}) == len(others) + 1


def test_what_a_node_expands_into_counts_as_a_call_of_that_node():
    prompt = engine("comfy.prompt")
    for id, call, expected in (("7", 2, ("7", 2)), ("5:7", 0, ("5:7", 0)), ("7.1.0.12", 0, ("7", 1)), ("7.3.0.1.0.0.2", 0, ("7", 3))):
        assert (prompt.node_of_graph(id), prompt.call_of_graph(id, call)) == expected


def made(node, prompt, signature=None):
    info = record.RunInfo("", "value space", "SD15", "euler", 1, (1.0, 0.0), ("middle.0.0",), node=node, prompt=prompt, signature=signature)
    return record.RunRecord(info, torch.ones(1), torch.zeros(1), torch.zeros(5, 1, 1, 2, 1))


def test_runs_of_nodes_that_never_come_back_do_not_pile_up():
    live = record.LiveRecord()
    for number in range(1000):
        live.add(made(str(number), f"prompt {number}", "same"))
        live.add(made("constant", f"prompt {number}", f"signature {number}"))
    assert len(live.nodes) < 100 and "999" in live.nodes
    counts = [len(live.of({"constant": f"signature {number}"}).runs) for number in range(1000)]
    assert counts[-1] == 1 and sum(counts) < 20
    assert len(live.of(None).runs) == len(live.nodes)
