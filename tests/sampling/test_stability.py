"""The measures in whole models."""

import pytest
import torch
from support import dense
from support.host import engine, patch, probe
from support.models import build
from support.sampling import sample
from support.watch import watch
from torch.utils._python_dispatch import TorchDispatchMode

record = engine("records.record")
SPACES = ["value space", "input space (paper)"]


def observed(model, name, space, rule):
    """What a written-out probe sees in each self-attention of a one-step run: {block: (5, rows)}."""
    alpha, beta, rescale = rule
    measured = {}

    def see(attention, plain):
        if attention.block is None:
            return None
        q, k, v, x = (t.double() for t in (attention.q, attention.k, attention.v, attention.x))
        out = pattern = dense.circulation(q, k, v, alpha, beta, rescale, x)
        if space == "input space (paper)":
            m = dense.logits(q, k)
            symmetric, skew = dense.split(m)
            p, p_alpha = m.softmax(-1), (symmetric + alpha * skew).softmax(-1)
            new = p @ v + beta * (p_alpha @ v - p @ v)
            rho = dense.rescale(p_alpha @ v, new)  # value space: the rule's own
            xs = x.unsqueeze(1)
            pattern = rho * (p @ xs + beta * (p_alpha @ xs - p @ xs))
        measured[attention.block] = dense.measures(q, k, pattern)
        return out

    sample(watch(model, see), name, steps=1, batch=2)
    return measured


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("rule", [(1.0, 0.0, "value space"), (1.2, 3.0, "value space")], ids=["plain", "circulation"])
def test_a_record_holds_what_the_model_retrieved(space, rule):
    model = build("sdxl")
    expected = observed(model, "sdxl", space, rule)
    patched = patch(model, alpha=rule[0], beta=rule[1], rescale=rule[2])
    probed, live = probe(patched, measure_in=space)
    sample(probed, "sdxl", steps=1, batch=2)
    (run,) = live.of(None).runs
    assert run.values.shape == (5, 1, len(run.info.blocks), 2, 2)
    assert list(run.info.blocks) == list(expected)
    for position, rows in enumerate(expected.values()):
        negative_then_positive = rows.float().unflatten(1, (2, 2))
        for branch, images in enumerate((negative_then_positive[:, 1], negative_then_positive[:, 0])):
            torch.testing.assert_close(run.values[:, 0, position, branch], images, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("space", SPACES)
def test_images_are_bit_identical_with_a_probe(space):
    model = patch(build("sd15"), alpha=1.2)
    untouched = sample(model, steps=3)
    probed, _ = probe(model, measure_in=space)
    assert torch.equal(sample(probed, steps=3), untouched)
    before, _ = probe(build("sd15"), measure_in=space)
    assert torch.equal(sample(patch(before, alpha=1.2), steps=3), untouched)


class Reads(TorchDispatchMode):
    """Counts the times a value is read back from a tensor: on a GPU each would make Python wait.

    In inference mode, in which ComfyUI samples, `item` and `bool` reach torch under names of their own.
    """

    NAMES = ("item", "is_nonzero", "_local_scalar_dense", "nonzero")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in [getattr(torch.ops.aten, name) for name in self.NAMES]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("read", [torch.Tensor.item, bool, torch.nonzero], ids=["item", "bool", "nonzero"])
def test_reads_are_counted(read, inference):
    with torch.inference_mode(inference), Reads() as reads:
        torch.ones(1).mul(2)
        assert reads.count == 0
        read(torch.ones(1))
    assert reads.count == 1


def reads_in_each_call(model):
    """Of each call of the model in a run of four steps, the number of values that are read back."""
    counts = []

    def count(apply_model, options):
        with Reads() as reads:
            out = apply_model(options["input"], options["timestep"], **options["c"])
        counts.append(reads.count)
        return out

    counted = model.clone()
    counted.set_model_unet_function_wrapper(count)
    sample(counted, "sdxl", steps=4)
    return counts


def test_nothing_is_read_back_within_a_model_call():
    """But, on a CPU, whether any image of a circulated call was not finite: there that costs nothing."""
    assert reads_in_each_call(build("sdxl")) == [0, 0, 0, 0]
    probed, live = probe(build("sdxl"))
    assert reads_in_each_call(probed) == [0, 0, 0, 0]
    assert live.of(None).runs[0].values.isfinite().all()
    blocks = 11
    late = patch(build("sdxl"), "CirculationAdaptive", alpha=1.3, start_percent=0.2)
    assert reads_in_each_call(late) == [0, blocks, blocks, blocks]
    probed, _ = probe(late)
    assert reads_in_each_call(probed) == [0, blocks, blocks, blocks]


def test_a_long_run_of_a_large_model_is_small(tmp_path):
    info = record.RunInfo("", "value space", "SDXL", "euler", 50, tuple(range(51)), tuple(f"output.0.{i}" for i in range(70)))
    run = record.RunRecord(info, torch.rand(50), torch.rand(50), torch.rand(5, 50, 70, 2, 4))
    record.save(record.Record((run,)), str(tmp_path / "record.safetensors"))
    assert (tmp_path / "record.safetensors").stat().st_size < 2e6
