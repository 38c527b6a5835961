"""A run that is cancelled, or fails in the model: what is said is what was sampled, and that it was stopped."""

import comfy.model_management
import pytest
from support import models
from support.host import engine, probe
from support.packs import ours
from support.sampling import sample, without_change

CANCELLED = comfy.model_management.InterruptProcessingException


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def failing(model, at, error):
    """A clone whose middle block raises at its n-th call."""
    calls = []

    def patch(q, k, v, extra_options):
        if extra_options["block"][0] == "middle":
            calls.append(None)
            if len(calls) == at:
                raise error
        return q, k, v

    model = model.clone()
    model.set_model_attn2_patch(patch)
    return model


def cancelled_after(step):
    def callback(at, *args):
        if at == step:
            raise CANCELLED

    return callback


@pytest.mark.parametrize("step, said", [(0, "step 1 of 60"), (2, "steps 1 to 3 of 60")])
def test_a_cancelled_run_names_the_steps_it_had(model, step, said, log, statuses):
    patched, live = probe(ours(model))
    with pytest.raises(CANCELLED):
        sample(patched, steps=60, callback=cancelled_after(step))
    line = f"4 of 4 blocks hit, {said}, positive and negative."
    (logged,) = log.records
    assert logged.getMessage() == f"Circulation: Stopped early. alpha 1.5 beta 3 on all: {line}"
    assert logged.levelname == "INFO" and without_change(statuses)["1"] == f"Stopped early. {line}"
    record = live.of(None)
    (run,) = record.runs
    assert not run.info.complete and len(run.sigma) == step + 1
    assert "60 steps, stopped early" in engine("records.summary").to_markdown(record)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), CANCELLED()], ids=["error", "cancelled"])
@pytest.mark.parametrize("at, blocks, steps", [(1, "2 of 4", "step 1 of 60"), (3, "4 of 4", "steps 1 to 3 of 60")])
def test_a_run_that_fails_within_the_model_names_the_blocks_and_steps_it_had(model, at, blocks, steps, error, log, statuses):
    with pytest.raises(type(error)):
        sample(ours(failing(model, at, error)), steps=60)
    (logged,) = log.records
    assert f"Stopped early. alpha 1.5 beta 3 on all: {blocks} blocks hit, {steps}" in logged.getMessage()
    assert statuses["1"].startswith(f"Stopped early. {blocks} blocks hit, {steps}")
    assert "Never came" not in logged.getMessage() and "never came" not in logged.getMessage()


def test_a_run_that_ends_before_the_model_is_asked_says_no_more_than_that(model, log, statuses):
    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    stopping = ours(model)
    stopping.add_wrapper("prepare_sampling", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        sample(stopping, steps=60)
    (logged,) = log.records
    assert logged.getMessage() == "Circulation: Stopped early. alpha 1.5 beta 3 on all: 0 of 4 blocks hit, none of 60 steps, no branch."
    assert statuses["1"] == "Stopped early. No block hit."


def test_the_next_run_of_the_same_model_is_whole_again(model, log):
    patched = ours(model)
    with pytest.raises(CANCELLED):
        sample(patched, steps=60, callback=cancelled_after(0))
    log.clear()
    sample(patched)
    assert "all 2 steps" in log.text and "Stopped" not in log.text
