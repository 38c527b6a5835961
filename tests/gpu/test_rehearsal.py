"""Every path on fake CUDA tensors: nothing makes Python wait for the GPU, nothing is in float64 or on another device, and what comes
out is like the model's own."""

from itertools import product

import pytest
import torch
from support.host import engine
from support.rehearsal import H100, OLDER_COMFYUI, RTX_4090, Layer, Watch, fake_gpu, rehearse
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

if not torch.backends.cuda.is_built():
    pytest.skip("This torch is built without CUDA.", allow_module_level=True)

Circulation, Adaptive = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
VALUE_SPACE, INPUT_SPACE, OFF = "value space", "input space (paper)", "off"
DTYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


def unet(dtype=torch.float16, **settings):
    return dict(layer=Layer(2, 1024, 10, 64, dtype), **settings)


def joint(dtype=torch.float16, in_heads=True, **settings):
    return dict(layer=Layer(2, 1152, 24, 128, dtype, text=128, in_heads=in_heads), **settings)


def mask(*shape, dtype):
    return lambda: torch.zeros(shape, device="cuda", dtype=dtype)


def cases():
    """{name: arguments of `rehearse`}"""
    for dtype, name in DTYPES.items():
        spaces = (VALUE_SPACE,) if dtype == torch.bfloat16 else (VALUE_SPACE, INPUT_SPACE)  # what differs from float16 is in value space
        masks = mask(2, 1, 1024, 1024, dtype=dtype)
        yield f"{name} no rescale", unet(dtype, circulation=Circulation(1.05, 3.0, OFF))
        yield f"{name} one pass", unet(dtype, circulation=Circulation(1.05, 3.0, method="one pass"))
        for space in spaces:
            yield f"{name} {space}", unet(dtype, circulation=Circulation(1.05, 3.0, space))
            yield f"{name} adaptive, {space}", unet(dtype, circulation=Circulation(1.2, 5.0, space, Adaptive()))
            yield f"{name} probe, {space}", unet(dtype, probed=space)
            yield f"{name} mask, {space}", unet(dtype, circulation=Circulation(1.05, 3.0, space), mask=masks)
        yield f"{name} image and text", joint(dtype, circulation=Circulation(1.05, 3.0))
        yield f"{name} image and text, one pass", joint(dtype, circulation=Circulation(1.05, 3.0, method="one pass"))
        adaptive = Circulation(1.2, 5.0, adaptive=Adaptive())
        yield f"{name} image and text, adaptive and probe", joint(dtype, circulation=adaptive, probed=VALUE_SPACE)
    for over, formula in product(("image", "head", "batch"), ("deviation", "scale")):
        yield f"adaptive over {over}, {formula}", unet(circulation=Circulation(1.2, 5.0, adaptive=Adaptive(formula=formula, eta_over=over)))
    yield "adaptive alpha only", unet(circulation=Circulation(1.2, 5.0, adaptive=Adaptive(adapts_beta=False)))
    yield "adaptive beta only", unet(circulation=Circulation(1.2, 5.0, adaptive=Adaptive(adapts_alpha=False)))
    yield "adaptive, one pass", unet(circulation=Circulation(1.2, 5.0, adaptive=Adaptive(), method="one pass"))
    yield "one pass, probe", unet(circulation=Circulation(1.05, 3.0, method="one pass"), probed=VALUE_SPACE)
    yield "schedule", unet(circulation=Circulation(1.05, 3.0, factor=0.5))
    yield "schedule, adaptive", unet(circulation=Circulation(1.05, 3.0, adaptive=Adaptive(), factor=0.5))
    yield "beta 1", unet(circulation=Circulation(1.05, 1.0))
    for space in (VALUE_SPACE, INPUT_SPACE):
        circulation = Circulation(1.2, 5.0, space, Adaptive(eta_over="head"))
        yield f"probe over adaptive, {space}", unet(circulation=circulation, probed=space)
    for in_heads, out_heads in ((False, False), (True, True)):
        name = f"image and text, heads {'in' * in_heads} {'out' * out_heads}"
        yield name, joint(in_heads=in_heads, out_heads=out_heads, circulation=Circulation(1.05, 3.0))
    yield "image in front of text", joint(circulation=Circulation(1.05, 3.0), image=slice(0, 1024))
    yield "image and text, no rescale", joint(circulation=Circulation(1.05, 3.0, OFF))
    yield "image and text, beta 1", joint(circulation=Circulation(1.05, 1.0))
    shapes = {"all alike": (1024, 1024), "each image": (2, 1024, 1024), "each head": (2, 10, 1024, 1024), "one row": (2, 1, 1, 1024)}
    for name, shape in shapes.items():
        yield f"mask, {name}", unet(circulation=Circulation(1.05, 3.0), mask=mask(*shape, dtype=torch.float16))
    yield "mask of booleans", unet(circulation=Circulation(1.05, 3.0), mask=mask(2, 1024, 1024, dtype=torch.bool))
    yield "mask, probe in input space", unet(probed=INPUT_SPACE, mask=mask(2, 1024, 1024, dtype=torch.float16))
    yield "another pack's attention", unet(circulation=Circulation(1.05, 3.0), previous=lambda func, *args, **kwargs: func(*args, **kwargs))
    for card in (OLDER_COMFYUI, RTX_4090, H100):
        for method in ("paper", "one pass"):
            yield f"UNet on {card}, {method}", unet(circulation=Circulation(1.05, 3.0, method=method), card=card)
            yield f"image and text on {card}, {method}", joint(torch.bfloat16, circulation=Circulation(1.05, 3.0, method=method), card=card)


CASES = dict(cases())


@pytest.mark.parametrize("name", CASES)
def test_a_call_is_clean_and_each_later_step_allocates_the_same(name):
    report = rehearse(**CASES[name])
    assert not report.faults
    assert report.allocations[1] == report.allocations[2]
    assert report.figures[1] == report.figures[2]


@pytest.mark.parametrize("dtype, told_to, expected", [
    (torch.float16, False, torch.float16),
    (torch.bfloat16, False, torch.bfloat16),
    (torch.float16, True, torch.float32),
    (torch.bfloat16, True, torch.bfloat16),
    (torch.float32, False, torch.float32),
    (torch.float64, False, torch.float64),
])  # fmt: skip
def test_half_tensors_are_multiplied_as_they_are_unless_torch_is_told_to_add_up_in_half(dtype, told_to, expected, monkeypatch):
    """torch raises then, and on AMD's GPUs: CUDABlas.cpp, bgemm_internal<at::Half, float>."""
    formula = engine("method.formula")
    before = torch.backends.cuda.matmul.allow_fp16_accumulation
    torch.backends.cuda.matmul.allow_fp16_accumulation = told_to
    try:
        with fake_gpu():
            on_gpu, on_cpu = (torch.empty(2, device=device, dtype=dtype) for device in ("cuda", "cpu"))
        assert formula.product_dtype(on_gpu) == expected
        assert formula.product_dtype(on_cpu) == torch.promote_types(dtype, torch.float32)
        monkeypatch.setattr(formula, "SUMS_IN_FLOAT32", set())
        assert formula.product_dtype(on_gpu) == torch.promote_types(dtype, torch.float32)
    finally:
        torch.backends.cuda.matmul.allow_fp16_accumulation = before


# What the watch sees


def watched(call):
    with fake_gpu():
        t = torch.ones(4, 8, device="cuda", dtype=torch.float16)
        with Watch() as watch:
            call(t)
    return watch


@pytest.mark.parametrize("call, fault", [
    (lambda t: t.cpu(), "CPU"),
    (lambda t: torch.ones(8), "CPU"),
    (lambda t: torch.tensor(1.0, device="cuda"), "CPU"),
    (lambda t: torch.tensor([1.0, 2.0], device="cuda"), "CPU"),
    (lambda t: t.double(), "float64"),
    (lambda t: t * torch.ones(8, device="cuda", dtype=torch.float64), "float64"),
])  # fmt: skip
def test_a_fault_is_seen(call, fault):
    assert any(fault in found for found in watched(call).faults)


@pytest.mark.parametrize("call", [
    lambda t: t.sum().item(), lambda t: bool(t.all()), lambda t: t.tolist(), lambda t: t.nonzero(), lambda t: t[t > 0],
    lambda t: t + torch.ones(8),
])  # fmt: skip
def test_what_cannot_be_done_with_fake_tensors_raises(call):
    """Reading a value back, and two devices in one operation."""
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException, RuntimeError)):
        watched(call)


@pytest.mark.parametrize("call, kernels, tensors", [
    (lambda t: t.view(8, 4).mT, 0, 0),
    (torch.empty_like, 0, 0),
    (lambda t: t + t, 1, 2),
    (lambda t: t.mul_(t), 1, 1),
    (lambda t: t.mul_(2), 1, 1),
    (lambda t: torch.add(t, t, out=torch.empty_like(t)), 1, 2),
    (lambda t: t.mT.contiguous(), 1, 2),
    (lambda t: t.float().mul_(2), 2, 1 + 2 + 2),
    (lambda t: torch.bmm(t[None].mT, t[None], out_dtype=torch.float32), 1, 2 + 4),
])  # fmt: skip
def test_what_is_moved(call, kernels, tensors):
    watch = watched(call)
    assert (watch.kernels, watch.moved) == (kernels, tensors * 64)


def test_memory_is_counted_while_it_is_held():
    def call(t):
        big = torch.empty(1024, device="cuda")
        del big
        kept = t + 1, t + 2
        assert kept

    watch = watched(call)
    assert watch.peak == 4096 and watch.allocations == [4096, 512, 512]
