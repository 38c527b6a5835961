"""Nothing of a run outlives it, and a model is the same after any number of runs, however they ended."""

import copy
import gc
import weakref

import comfy.model_management
import psutil
import pytest
import torch
from support import models
from support.host import engine, patch
from support.sampling import sample

RULES = dict(alpha=1.5, start_percent=0.2)


@pytest.fixture(scope="module")
def model():
    return models.build("sd15")


@pytest.fixture(scope="module")
def untouched():
    """The image of a model that has never been patched."""
    return sample(models.build("sd15"))


@pytest.fixture
def runs(monkeypatch):
    """A weak reference to each run that sampling makes."""
    made = []

    def tracked(*args, **kwargs):
        run = Run(*args, **kwargs)
        made.append(weakref.ref(run))
        return run

    Run = engine("comfy.patch").Run
    monkeypatch.setattr(engine("comfy.patch"), "Run", tracked)
    return made


def live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def outline(value):
    """Dictionaries by content, all else by identity."""
    if isinstance(value, dict):
        return {key: outline(inner) for key, inner in value.items()}
    return [id(each) for each in value] if isinstance(value, list) else id(value)


def state(patcher):
    kept = ("model_options", "wrappers", "callbacks", "attachments", "object_patches", "patches", "injections")
    return {name: outline(getattr(patcher, name)) for name in kept}


# Ways for a run to end


def in_full(model):
    sample(model)


def interrupted(model):
    def cancel(*args):
        comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, callback=cancel)


def failed_in_the_sampler(model):
    def fail(*args):
        raise RuntimeError("the sampler failed")

    with pytest.raises(RuntimeError, match="the sampler failed"):
        sample(model, callback=fail)


def failed_in_the_model(model):
    """In the middle of a block, between the mark we leave and the attention it is meant for."""

    def fail(q, k, v, extra_options):
        raise RuntimeError("the model failed")

    failing = model.clone()
    failing.set_model_attn1_replace(fail, "middle", 0)
    with pytest.raises(RuntimeError, match="the model failed"):
        sample(failing)


def failed_to_load(model):
    """Before sampling proper, as when memory runs out while the model is loaded."""

    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    failing = model.clone()
    failing.add_wrapper("prepare_sampling", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        sample(failing)


ENDS = [in_full, interrupted, failed_in_the_sampler, failed_in_the_model, failed_to_load]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_nothing_of_a_run_survives_it(model, runs, end):
    patched = patch(model, **RULES)
    end(patched)
    gc.collect()
    before = live_tensors()
    end(patched)
    assert len(runs) == 2
    assert [run() for run in runs] == [None, None]
    assert live_tensors() <= before


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_the_models_are_as_they_were_and_sample_as_they_did(model, untouched, end):
    patched = patch(model, **RULES)
    image = sample(patched)
    states = state(model), state(patched)
    end(patched)
    assert (state(model), state(patched)) == states
    assert torch.equal(sample(model), untouched)
    assert torch.equal(sample(patched), image)
    assert not torch.equal(image, untouched)


def test_clones_keep_the_rules_and_add_their_own():
    model = models.build("sd15")
    patched = patch(model, **RULES)
    image = sample(patched)
    assert torch.equal(sample(patched.clone()), image)
    deep = patched.clone()
    deep.model_options = copy.deepcopy(patched.model_options)  # as clone() itself does in 0.3.75
    assert torch.equal(sample(deep), image)
    further = patch(patched.clone(), alpha=0.5, blocks="middle")
    assert not torch.equal(sample(further), image)
    assert torch.equal(sample(patched), image)
    assert [len(each.get_attachment("circulation") or ()) for each in (model, patched, further)] == [0, 1, 2]


def test_a_run_inside_another_models_run_changes_neither(model):
    patched, other = patch(model, alpha=1.5), patch(models.build("sd15", seed=3), alpha=0.5, blocks="input")
    alone, inner_alone = sample(patched, steps=3), sample(other, seed=1)
    inner = []
    assert torch.equal(sample(patched, steps=3, callback=lambda *args: inner.append(sample(other, seed=1))), alone)
    assert len(inner) == 3 and all(torch.equal(each, inner_alone) for each in inner)


def growth(model, runs=200):
    """Live tensors and bytes of memory that the second half of many runs adds."""
    process = psutil.Process()
    for count in range(runs):
        if count == runs // 2:
            tensors, memory = live_tensors(), process.memory_info().rss
        sample(model, size=8, steps=1)
    return live_tensors() - tensors, process.memory_info().rss - memory


def test_two_hundred_runs_leave_no_tensor_and_no_more_memory_than_without_us():
    model = models.build("sd15", **models.ONE_LEVEL)
    patched = patch(patch(model, "CirculationAdaptive", alpha=1.5), alpha=1.3, rescale="input space (paper)", blocks="middle")
    growth(model, runs=20)
    control_tensors, control_memory = growth(model)
    tensors, memory = growth(patched)
    assert tensors <= max(control_tensors, 0)
    assert memory <= max(control_memory, 0) + 4 * 2**20
