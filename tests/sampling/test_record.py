"""Every row of a record is what its axes say, whatever the sampler and the other nodes do."""

import json

import comfy.model_base
import comfy.model_management
import comfy_extras.nodes_hypertile as hypertile
import comfy_extras.nodes_pag as pag
import node_helpers
import pytest
import torch
from support.host import engine, node, patch, probe, with_hidden
from support.models import build, conditioning
from support.others import execute
from support.sampling import sample

choices, record = engine("choices"), engine("records.record")


@pytest.fixture(scope="module")
def model():
    return build("sd15")


def run_of(model, **kwargs):
    """The record of one run with a probe, and the sigma of each evaluation as the sampler called for it."""
    inputs = {key: kwargs.pop(key) for key in ("every_n_steps", "blocks", "branches", "label") if key in kwargs}
    probed, live = probe(model, **inputs)
    asked = []

    def note(executor, x, timestep, *args, **kw):
        asked.append(float(timestep[0]))
        return executor(x, timestep, *args, **kw)

    probed.add_wrapper_with_key("predict_noise", "test", note)
    sample(probed, **kwargs)
    (run,) = live.of(None).runs
    return run, asked


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "dpmpp_2m", "dpmpp_sde", "dpm_adaptive"])
def test_each_evaluation_of_a_sampler_is_one_row_at_its_own_sigma(model, sampler):
    run, asked = run_of(model, sampler=sampler, steps=4)
    assert run.sigma.tolist() == pytest.approx(asked)
    assert run.values.isfinite().all()
    assert run.info.sampler == sampler
    grid = run.info.schedule
    for step, sigma in zip(run.step.tolist(), run.sigma.tolist()):
        low, high = grid[int(step) + 1], grid[int(step)]
        assert (low <= sigma * (1 + 1e-3) and sigma <= high * (1 + 1e-3)) or sigma >= grid[0]
    if sampler == "euler":
        assert run.step.tolist() == [0, 1, 2, 3]
    if sampler == "heun":  # the second evaluation of a step stands where the next begins
        assert run.step.tolist() == pytest.approx([0, 1, 1, 2, 2, 3, 3])


def test_every_n_steps(model):
    run, asked = run_of(model, steps=7, every_n_steps=3)
    assert run.step.tolist() == [0, 3, 6]
    assert run.sigma.tolist() == pytest.approx([asked[0], asked[3], asked[6]])


def test_chosen_blocks_and_branches(model):
    run, _ = run_of(model, blocks="middle output.1", branches="negative")
    assert run.info.blocks == ("middle.0.0", "output.1.0")
    assert run.values[:, :, :, 1].isfinite().all()
    assert run.values[:, :, :, 0].isnan().all()


def test_without_guidance_there_is_no_negative(model):
    run, _ = run_of(model, cfg=1.0)
    assert run.values[:, :, :, 0].isfinite().all()
    assert run.values[:, :, :, 1].isnan().all()


def test_split_and_unsplit_calls_give_the_same_record(model, monkeypatch):
    together, _ = run_of(model, batch=2)
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: float("inf"))
    apart, _ = run_of(model, batch=2)
    torch.testing.assert_close(together.values, apart.values, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together.values[..., 0, :], together.values[..., 1, :])
    assert not torch.allclose(together.values[..., 0], together.values[..., 1])


def test_the_extra_pass_of_perturbed_attention_is_left_out(model):
    plain, _ = run_of(model)
    run, _ = run_of(execute(pag.PerturbedAttentionGuidance, model, 3.0))
    torch.testing.assert_close(run.values[:, 0], plain.values[:, 0])
    assert run.values.isfinite().all()
    assert any("further passes" in note for note in run.info.notes)


def test_one_prompt_stands_for_its_branch_and_the_others_are_left_out(model):
    positive = conditioning("sd15", 1)
    alone, _ = run_of(model, positive=positive, steps=1)
    where = {"area": (8, 8, 0, 0), "strength": 1.0, "set_area_to_bounds": False}
    area = node_helpers.conditioning_set_values(conditioning("sd15", 3), where)
    further = conditioning("sd15", 4)
    for extra in (area, further):
        run, _ = run_of(model, positive=positive + extra, steps=1)
        torch.testing.assert_close(run.values[:, :, :, 0], alone.values[:, :, :, 0], rtol=1e-3, atol=1e-3)
        assert any("further positive prompts" in note for note in run.info.notes)


def test_calls_that_merge_tokens_are_missing_and_said_to_be(model):
    run, _ = run_of(execute(hypertile.HyperTile, model, 32, 2, 0, False), size=32)
    missing = run.values[0, 0, :, 0, 0].isnan()
    assert missing.any() and not missing.all()
    assert any("queries and keys differ in number" in note for note in run.info.notes)


def test_an_interrupted_run_leaves_what_was_measured(model):
    probed, live = probe(model)

    def stop(step, *args):
        if step == 2:
            raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(probed, steps=6, callback=stop)
    (run,) = live.of(None).runs
    assert not run.info.complete and run.values.shape[1] == 3
    assert run.values.isfinite().all()
    assert "stopped early" in engine("records.summary").to_markdown(live.of(None))


def test_a_run_that_ends_early_counts_on_the_whole_schedule_it_was_given(model):
    run, _ = run_of(model, steps=6, last_step=3)
    assert run.step.tolist() == [0, 1, 2] and run.info.steps == 3
    assert run.info.complete


def test_two_runs_of_one_model_follow_each_other(model):
    probed, live = probe(model)
    sample(probed, steps=2)
    sample(probed, steps=3)
    assert [run.info.steps for run in live.of(None).runs] == [2, 3]


def made(node, prompt, steps):
    info = record.RunInfo("", "value space", "SD15", "euler", steps, (1.0, 0.0), ("middle.0.0",), node=node, prompt=prompt)
    return record.RunRecord(info, torch.ones(1), torch.zeros(1), torch.zeros(5, 1, 1, 2, 1))


def test_a_probe_tells_one_small_event_a_step(model):
    told = []
    blocks = engine("rules.blocks")
    live = record.LiveRecord()
    chosen = blocks.Selection.parse("all").of(engine("comfy.model").patchable_blocks(model))
    watcher = engine("run.observer").Probe("value space", 1, chosen, "both", "", live, told.append)
    sample(engine("comfy.patch").attach(model, watcher), steps=4, sampler="heun")
    assert [event["step"] for event in told] == [1, 2, 3, 4]
    assert all(len(json.dumps(event, allow_nan=False)) < 8000 for event in told)
    (run,) = live.of(None).runs
    means = run.values[:, 0, run.stages()["middle"]].flatten(1).mean(1)
    assert told[0]["stages"]["middle"] == pytest.approx(means.tolist(), rel=1e-5)
    points = engine("records.chart").chart_data(run)
    assert [points["steps"], *points["points"]] == [4, *({key: event[key] for key in points["points"][0]} for event in told)]
    assert all(tuple(event["blocks"]) == tuple(points["blocks"]) for event in told)


def test_a_record_says_where_its_blocks_and_evaluations_lie_in_the_model_and_the_sampling(model):
    run, _ = run_of(model, steps=5, blocks="middle, output.1")
    sampling = model.get_model_object("model_sampling")
    assert run.percent.tolist() == pytest.approx([1 - float(sampling.timestep(sigma)) / 999 for sigma in run.sigma], abs=2e-3)
    assert run.info.model_blocks == tuple(map(str, engine("comfy.model").patchable_blocks(model)))
    drawn = engine("records.chart").chart_data(run)
    instability = choices.MEASURES.index("instability")
    for at, point in enumerate(drawn["points"]):
        shown = {name: value for name, value in zip(drawn["blocks"], point["unsettled"]) if value is not None}
        expected = {name: float(run.values[instability, at, block].mean()) for block, name in enumerate(run.info.blocks)}
        assert list(shown) == ["middle.0.0", "output.1.0"] and shown == pytest.approx(expected, rel=6e-3)


@pytest.mark.parametrize("columns", [1, 7, 12])
def test_an_evaluation_lies_in_the_column_of_a_schedule_that_acts_on_it(model, columns):
    run, _ = run_of(model, steps=9, sampler="heun")
    grid = engine("rules.schedule").Schedule((tuple(range(columns)),))
    factors = grid.resampled(1, model.get_model_object("model_sampling").percent_to_sigma)
    lies_in = [min(int(percent * columns), columns - 1) for percent in run.percent.tolist()]
    assert lies_in == [int(factors(sigma)[0]) for sigma in run.sigma.tolist()]


def test_a_saved_record_comes_back_equal(model, tmp_path):
    run, _ = run_of(patch(model, alpha=1.2), label="α ≈ 1.2", batch=2)
    path = str(tmp_path / "record.safetensors")
    other = made("3", "a", 1)
    record.save(record.Record((other, run)), path)
    back = record.load(path)
    assert [r.info for r in back.runs] == [other.info, run.info]
    for name in ("values", "sigma", "step", "percent"):
        assert torch.equal(getattr(back.runs[1], name), getattr(run, name))
    assert back.runs[0].percent is None


def test_records_without_a_label_are_compared_by_what_was_done(model, monkeypatch):
    settings = [dict(alpha=1.2, beta=5.0), dict(alpha=1.2, beta=5.0, method="one pass"), dict(alpha=1.0)]
    records = [record.Record((run_of(patched)[0],)) for patched in (model, *(patch(model, **setting) for setting in settings))]
    drawn, sheet = [], torch.zeros(1, 64, 64, 3)
    monkeypatch.setattr(engine("records.plots"), "compare", lambda runs, theme: drawn.extend(run.info.label for run in runs) or sheet)
    node("StabilityCompare").execute(*records)
    assert drawn == ["record 1: off", "alpha 1.2, beta 5", "alpha 1.2, beta 5, one pass", "record 4: off"]
    assert record.to_csv(records[1]).splitlines()[1].startswith('1,"alpha 1.2, beta 5",1,')


@pytest.mark.parametrize("inputs, words", [
    (dict(measure_in="elsewhere"), "measure_in is 'elsewhere'"),
    (dict(every_n_steps=0), "every_n_steps is 0"),
    (dict(blocks="nowhere"), "'nowhere' selects no block"),
    (dict(branches="neither"), "branches is 'neither'"),
    (dict(every_n_steps=1.5), "every_n_steps is 1.5 and must be a whole number between 1 and 1000"),
    (dict(every_n_steps=None), r"every_n_steps is None \(NoneType\)"),
    (dict(blocks=5), "blocks is 5 and must be text"),
    (dict(label=["a"]), r"label is \['a'\] \(list\) and must be text"),
])  # fmt: skip
def test_bad_inputs_of_the_probe_are_refused(model, inputs, words):
    with pytest.raises(ValueError, match=words):
        probe(model, **inputs)


def test_what_a_probe_has_yet_to_fill_is_shown_as_empty_and_not_saved(model):
    _, live = probe(model)
    cls = with_hidden("StabilityReadout", UNIQUE_ID="2", PROMPT={})
    _, graph, summary, _, empty = cls.execute(live, "sheet", "energy").result
    assert summary.startswith("Nothing was sampled with this probe's model") and graph.shape[2:] == (1024, 3)
    for needs in (lambda r: node("StabilityCompare").execute(r, r), lambda r: node("SaveStability").execute(r, "x")):
        with pytest.raises(ValueError, match="straight from a probe.* Connect the stability output of a Stability Readout"):
            needs(live)
        with pytest.raises(ValueError, match="is empty: nothing was sampled"):
            needs(empty)
