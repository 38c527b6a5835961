"""Packs that exchange the network while their MODEL is loaded, by an object patch, as RES4LYF's patchers and wrapper modules do.

What is loaded stays loaded when the next prompt starts: nodes then meet the exchanged class.
"""

import comfy.model_management
import pytest
import torch
from support import models, transformers
from support.errors import change
from support.host import engine, node, patch, probe
from support.packs import ORDERS, VISIBLE, both, ours
from support.sampling import sample

NAMES = ["sd15", "chroma", "wan"]  # no subclasses of ComfyUI's: those of RES4LYF are not either


@pytest.fixture(params=NAMES)
def small(request):
    """A MODEL, and how it is sampled."""
    if request.param == "sd15":
        return models.build("sd15", **models.ONE_LEVEL), sample
    return transformers.build(request.param), lambda model, **kwargs: transformers.sample(model, request.param, **kwargs)


def like(cls):
    """A class of another pack's that copies ComfyUI's instead of inheriting from it."""
    methods = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    return type(f"Re{cls.__name__}", cls.__bases__, {**methods, "__module__": "another_pack"})


def with_class(model):
    """The network keeps its weights and becomes another's."""
    model = model.clone()
    model.add_object_patch("diffusion_model.__class__", like(type(model.model.diffusion_model)))
    return model


def with_classes_of_parts(model):
    """The parts of the network too, as for regional prompts. ComfyUI's UNet then passes its transformers over."""
    patched = with_class(model)
    for name, part in model.model.diffusion_model.named_modules():
        if name and type(part).__module__.startswith(("comfy.ldm", "another_pack")):
            patched.add_object_patch(f"diffusion_model.{name}.__class__", like(type(part)))
    return patched


class Wrapper(torch.nn.Module):
    """Around ComfyUI's network, which computes."""

    def __init__(self, network):
        super().__init__()
        self.wrapped = network

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("wrapped"), name)

    def forward(self, *args, **kwargs):
        return self.wrapped(*args, **kwargs)


def with_wrapper(model):
    model = model.clone()
    model.add_object_patch("diffusion_model", Wrapper(model.model.diffusion_model))
    return model


EXCHANGES = [with_class, with_classes_of_parts, with_wrapper]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)
def test_each_queue_samples_the_same(small, exchange, order, log):
    model, sample = small
    alone, plain = sample(ours(model)), sample(model)
    comfy.model_management.unload_all_models()
    first, theirs = sample(both(model, exchange, order)), sample(exchange(model))
    if torch.equal(theirs, plain):  # theirs computes as ComfyUI does
        assert torch.equal(first, alone) and change(first, theirs) > VISIBLE
        assert not any("Left alone" in record.getMessage() or record.levelname == "WARNING" for record in log.records)
    loaded = both(model, exchange, order)
    assert torch.equal(sample(loaded), first)
    assert torch.equal(sample(loaded), first)
    assert torch.equal(sample(both(model, exchange, order)), first), "our node ran while theirs was loaded"

@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)
def test_a_plain_branch_beside_it_is_circulated_and_measured(small, exchange):
    model, sample = small
    alone = sample(ours(model))
    sample(exchange(model))
    patched, live = probe(ours(model))  # theirs is still loaded
    assert torch.equal(sample(patched), alone)
    assert live.of(None).runs[0].values.isfinite().any(0).all(-2).all()
    sample(both(model, exchange, "ours first"))
    assert torch.equal(sample(patched), alone)
    assert all(str(block) in node("ModelBlocks").execute(model).result[0] for block in engine("comfy.model").patchable_blocks(model))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.__name__)
def test_off_leaves_theirs_alone_on_every_queue(small, exchange, order):
    model, sample = small
    theirs = sample(exchange(model))
    off = both(model, exchange, order, lambda model: ours(model, alpha=1.0))
    assert torch.equal(sample(off), theirs)
    assert torch.equal(sample(off), theirs)


def test_a_model_that_the_node_took_never_raises_at_sampling(small, log, statuses):
    """However its network has become another's since, here for good and without a patch that says so."""
    model, sample = small
    patched, off = ours(model), ours(model, alpha=1.0)
    network = model.model.diffusion_model
    was = type(network)
    plain = sample(model)
    network.__class__ = like(was)
    try:
        assert torch.equal(sample(patched), plain) and torch.equal(sample(off), plain)
    finally:
        network.__class__ = was
    assert f"Re{was.__name__}" in log.text and "WARNING" in log.text
    assert f"Re{was.__name__}" in statuses["1"] or statuses["1"].startswith("Off")
    assert torch.equal(sample(patched), sample(ours(model)))


def test_a_model_that_came_in_a_wrapper_is_refused_by_the_name_of_its_network(small):
    """As Nunchaku's loaders make them."""
    model, _ = small
    model.model.diffusion_model = Wrapper(model.model.diffusion_model)
    name = engine("comfy.model").model_name(model)
    with pytest.raises(ValueError, match=f"does not know {name} models whose network is a Wrapper"):
        patch(model)
