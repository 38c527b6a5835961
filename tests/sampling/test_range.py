"""start_percent and end_percent, against what ComfyUI itself does with a prompt's timestep range."""

import comfy_extras.nodes_model_advanced as model_advanced
import node_helpers
import pytest
import torch
from support.host import patch
from support.models import build, conditioning
from support.sampling import sample
from support.watch import watch

RANGES = [(0.0, 0.4), (0.3, 0.7), (0.55, 1.0), (0.0, 1.0), (1 / 3, 1 / 3), (2 / 3, 1.0)]


def flow(model):
    return model_advanced.ModelSamplingSD3().patch(model, 3.0)[0]


def evaluations(model, start, end, **kwargs):
    """For each model evaluation: (sigma, whether we acted, whether core ran a prompt with that range)."""
    seen: dict[int, dict] = {}
    steps = []

    def see(attention, plain):
        seen[len(steps)]["acted"] |= attention.doubled

    def count(executor, *args, **kwargs):
        steps.append(None)
        return executor(*args, **kwargs)

    model = watch(model, see)
    model.add_wrapper_with_key("predict_noise", "test", count)

    def note_conditions(apply_model, options):
        entry = seen.setdefault(len(steps), {"acted": False, "sigma": float(options["timestep"][0])})
        entry["prompts"] = entry.get("prompts", 0) + len(options["cond_or_uncond"])
        return apply_model(options["input"], options["timestep"], **options["c"])

    model.set_model_unet_function_wrapper(note_conditions)
    ranged = node_helpers.conditioning_set_values(conditioning("sd15", 3), {"start_percent": start, "end_percent": end})
    sample(model, positive=conditioning("sd15", 1) + ranged, **kwargs)
    return [(entry["sigma"], entry["acted"], entry["prompts"] == 3) for entry in seen.values()]


@pytest.mark.parametrize("start, end", RANGES)
@pytest.mark.parametrize("kind", ["diffusion", "flow before ours", "flow after ours"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_sde"])
def test_exactly_the_evaluations_in_the_range_are_affected(sampler, kind, start, end):
    model = build("sd15")
    if kind == "flow before ours":
        model = flow(model)
    model = patch(model, alpha=1.3, start_percent=start, end_percent=end)
    if kind == "flow after ours":
        model = flow(model)
    found = evaluations(model, start, end, steps=4, sampler=sampler)
    assert [acted for _, acted, _ in found] == [core for _, _, core in found]
    if (start, end) in RANGES[:4]:
        assert any(acted for _, acted, _ in found)
    if (start, end) != (0.0, 1.0):
        assert not all(acted for _, acted, _ in found)


def test_both_ends_of_the_range_belong_to_it():
    """A third of the way is exactly the second of four steps."""
    model = build("sd15")
    sigma = torch.tensor(model.get_model_object("model_sampling").percent_to_sigma(1 / 3), dtype=torch.float32)
    found = evaluations(patch(model, alpha=1.3, start_percent=1 / 3, end_percent=1 / 3), 1 / 3, 1 / 3, steps=4)
    assert [acted for _, acted, _ in found] == [False, True, False, False]
    assert found[1][0] == float(sigma)


def test_ranges_of_two_rules_meet_without_a_gap():
    model = build("sd15")
    halves = patch(patch(model, alpha=1.3, end_percent=0.5), alpha=1.3, start_percent=0.5)
    assert torch.equal(sample(halves, steps=5), sample(patch(model, alpha=1.3), steps=5))
