"""torch.compile as packs use it: block by block, no guard on transformer_options, attentions that the compiler cannot see into.

As when users compare with the bypass key: one model is sampled without us and with us, in either order.
"""

import comfy.ldm.flux.math as flux_math
import comfy_extras.nodes_torch_compile as core
import pytest
import torch
from comfy.ldm.modules import attention
from comfy_api.torch_helpers import set_torch_compile_wrapper
from support import models, others, transformers
from support.packs import ours
from support.sampling import sample


def kjnodes(model, keys):
    """A compile node that drops all guards on transformer_options, on the parts `keys`."""
    model = model.clone()
    unguarded = {"guard_filter_fn": lambda guards: ["transformer_options" not in guard.name for guard in guards]}
    set_torch_compile_wrapper(model, keys=keys, backend="eager", options=unguarded)
    return model


def by_block(model):
    lists = ("double_blocks", "single_blocks", "blocks", "joint_blocks", "transformer_blocks")
    network = model.model.diffusion_model
    return kjnodes(model, [f"diffusion_model.{name}.{i}" for name in lists for i in range(len(getattr(network, name, ())))])


def whole(model):
    return kjnodes(model, ["diffusion_model"])


def by_comfyui(model):
    return others.execute(core.TorchCompileModel, model, backend="eager")


@torch.compiler.disable
def opaque(*args, **kwargs):
    return attention.attention_pytorch(*args, **kwargs)


def selector(model):
    """An attention that the compiler cannot see into, as SageAttention is."""
    return others.overwrite(model, lambda *args, **kwargs: opaque(*args, **{**kwargs, "_inside_attn_wrapper": True}))


def default(model):
    return model


CASES = [("sd15", by_comfyui), ("sd15", whole), ("flux", by_comfyui), ("flux", by_block), ("flux", whole)]
CASES += [("wan", by_block), ("sd3", by_block), ("hidream", by_comfyui)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].__name__}")
def case(request):
    name, compiled = request.param
    if name == "sd15":
        return models.build("sd15", **models.ONE_LEVEL), compiled, lambda model: sample(model, size=8)
    texts = dict(negative=transformers.conditioning(name, 2))
    return transformers.build(name), compiled, lambda model: transformers.sample(model, name, **texts)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend, without_us_first", [(default, True), (selector, False)], ids=["default", "selector"])
def test_each_run_is_what_it_is_uncompiled(case, backend, without_us_first, log):
    model, compiled, run = case
    model = backend(model)
    plain, circulated, weaker = run(model), run(ours(model)), run(ours(model, alpha=1.2))
    shared = compiled(model)
    log.clear()
    for turn in range(2):
        for without in (without_us_first, not without_us_first):
            assert torch.equal(run(shared if without else ours(shared)), plain if without else circulated), (turn, without)
    assert torch.equal(run(ours(shared, alpha=1.2)), weaker)
    assert torch.equal(run(compiled(ours(model))), circulated)
    assert torch.equal(run(ours(shared, alpha=1.0)), plain)
    assert "WARNING" not in log.text


def test_nothing_is_compiled_anew_once_both_were_seen(case):
    model, compiled, run = case
    shared = compiled(model)
    for _ in range(2):
        run(shared), run(ours(shared))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for alpha in (1.5, 1.3):
        run(shared), run(ours(shared, alpha=alpha)), run(ours(shared, alpha=alpha, start_percent=0.5))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_the_state_that_tells_the_code_apart_is_given_back(case):
    model, compiled, run = case

    def state():
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    before = state()
    run(ours(compiled(model)))
    assert state() == before
    failing = ours(compiled(model))
    failing.set_model_unet_function_wrapper(lambda apply_model, given: apply_model(given["input"], None))
    with pytest.raises((AttributeError, TypeError)):
        run(failing)
    assert state() == before
    torch.use_deterministic_algorithms(True)
    try:
        run(ours(compiled(model)))
        assert state() == (True, False)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def test_a_model_that_is_compiled_as_one_graph_is_left_alone_with_a_warning(log, statuses, monkeypatch):
    """The compiler refuses what it cannot see into there, and would end the sampling."""
    monkeypatch.setattr(flux_math, "optimized_attention", attention.attention_pytorch)  # which it can see into
    model = transformers.build("flux").clone()
    unguarded = {"guard_filter_fn": lambda guards: ["transformer_options" not in guard.name for guard in guards]}
    set_torch_compile_wrapper(model, keys=["diffusion_model"], backend="eager", fullgraph=True, options=unguarded)
    plain = transformers.sample(model, "flux")
    assert torch.equal(transformers.sample(ours(model), "flux"), plain)
    assert "left the model alone: it is compiled with fullgraph" in log.text and "fullgraph" in statuses["1"]
