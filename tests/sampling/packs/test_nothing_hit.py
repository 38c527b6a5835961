"""Where nothing was hit: a warning with the cause, the same on the node, and steps that were skipped are not counted."""

import pytest
import torch
from support import models, transformers
from support.packs import ORDERS, both, ours
from support.sampling import sample


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def without_options(model):
    """A pack whose forward gives the attention no override, as TeaCache, RES4LYF and Fluxtapoz do."""
    model = model.clone()

    def wrapper(apply_model, given):
        dropped = ("optimized_attention_override", "patches", "patches_replace")
        options = {key: value for key, value in given["c"]["transformer_options"].items() if key not in dropped}
        return 0.9 * apply_model(given["input"], given["timestep"], **{**given["c"], "transformer_options": options})

    model.set_model_unet_function_wrapper(wrapper)
    return model


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["sd15", "flux", "wan"])
def test_a_forward_that_asks_for_no_override_is_a_warning_with_its_cause(name, order, log, statuses):
    unet = name == "sd15"
    model = models.build("sd15", **models.ONE_LEVEL) if unet else transformers.build(name)
    run = sample if unet else lambda model: transformers.sample(model, name)
    assert torch.equal(run(both(model, without_options, order)), run(without_options(model)))
    (line,) = log.records
    assert line.levelname == "WARNING"
    assert "never came past Circulation" in line.getMessage() and "never came past Circulation" in statuses["1"]


@pytest.mark.parametrize("inputs, run, cause", [
    (dict(start_percent=0.5, end_percent=0.5), {}, "cover no step"),
    (dict(start_percent=0.9), dict(steps=1), "cover no step"),
    (dict(branches="negative"), dict(cfg=1.0), "cfg 1 leaves it out"),
])  # fmt: skip
def test_the_cause_is_named(model, inputs, run, cause, log, statuses):
    image = sample(ours(model, **inputs), **run)
    assert torch.equal(image, sample(model, **run))
    (line,) = log.records
    assert line.levelname == "WARNING" and cause in line.getMessage()
    assert statuses["1"].startswith("No block hit.") and cause in statuses["1"]


@pytest.mark.parametrize("order", ORDERS)
def test_steps_that_a_cache_skips_are_not_hit(model, order, log):
    def cache(model):
        model, answers = model.clone(), []

        def predict(executor, x, timestep, *args, **kwargs):
            if len(answers) % 2 == 0:
                answers.append(executor(x, timestep, *args, **kwargs))
            else:
                answers.append(answers[-1])
            return answers[-1]

        model.add_wrapper_with_key("predict_noise", "cache", predict)
        return model

    sample(both(model, cache, order), steps=4)
    assert "4 of 4 blocks hit, steps 1, 3 of 4" in log.text


def test_the_status_of_a_node_in_an_expanded_one_goes_to_the_node_on_the_screen(model, statuses):
    sample(ours(model, node="7.0.0.2"))
    assert list(statuses) == ["7"] and statuses["7"].startswith("4 of 4 blocks hit")
