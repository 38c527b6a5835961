"""The fused kernel: what it computes, in Triton's interpreter, and when it is used. tests/kernels reads what it takes of a GPU."""

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support import dense
from support.errors import change
from support.host import engine
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode

fused = engine("method.fast.fused")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
# That of Triton 3.6 fails on whatever NumPy from 2.4 on no longer takes for a number
interprets = find_spec("triton") is not None and TorchVersion(version("triton")) >= (3, 8)
needs_interpreter = pytest.mark.skipif(not interprets, reason="The interpreter of this Triton does not go with NumPy 2.4")
INTERPRETED = Path(__file__).parents[1] / "support" / "interpreted.py"
ALL = (0, None)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def qkv(length, d, heads=2, rows=1, layout="tokens"):
    """q, k and v, (rows, heads, length, d) float16, in memory as models have them."""
    if layout == "tokens":  # a projection each, (B, L, H d)
        return [(1.5 * random(rows, length, heads * d, seed=s)).half().unflatten(-1, (heads, d)).transpose(1, 2) for s in range(3)]
    if layout == "joint":  # one projection for all three
        return (1.5 * random(rows, length, 3, heads, d)).half().permute(2, 0, 3, 1, 4).unbind()
    if layout == "heads":  # after RoPE
        return [(1.5 * random(rows, heads, length, d, seed=s)).half() for s in range(3)]
    if layout == "mixed":
        return [qkv(length, d, heads, rows, one)[which] for which, one in enumerate(("tokens", "heads", "joint"))]
    assert layout == "some rows"  # those of the positive
    return [t[1:] for t in qkv(length, d, heads, rows + 1)]


PLACES = {"image after text": (200, (77, None)), "image in front": (170, (0, 100)), "image in the middle": (140, (13, 90))}
PER_HEAD = torch.tensor([-1.0, 0.5, 1.05, 3.0])
CASES = {
    **{f"d {d} L {length} alpha {alpha}": (qkv(length, d), alpha, ALL)
       for d in (40, 64, 80, 96, 128) for length in (77, 130) for alpha in (-1.0, 1.05, 3.0)},
    **{f"d {d} {place} alpha {alpha}": (qkv(length, d), alpha, tokens)
       for d in (40, 128) for place, (length, tokens) in PLACES.items() for alpha in (-1.0, 0.5, 3.0)},
    "one token": (qkv(1, 64), 3.0, ALL),
    "one token of the image": (qkv(70, 64), 3.0, (33, 34)),
    "whole tiles": (qkv(128, 64), 0.5, ALL),
    "whole tiles around the image": (qkv(192, 64), 0.5, (64, 128)),
    "alpha of each head": (qkv(77, 64, heads=4, rows=2), PER_HEAD.reshape(1, 4, 1, 1), ALL),
    "alpha of each row": (qkv(77, 64, rows=4), PER_HEAD.reshape(4, 1, 1, 1), ALL),
    "alpha of each row and head": (qkv(100, 64, rows=2), PER_HEAD.reshape(2, 2, 1, 1), (13, 90)),
    "alpha of all": (qkv(77, 64), torch.full((1, 1, 1, 1), 0.5), ALL),
    **{f"layout {layout}": (qkv(100, 40, heads=3, rows=2, layout=layout), 3.0, (13, 90))
       for layout in ("joint", "heads", "mixed", "some rows")},
}  # fmt: skip


# An output that is there already, (1, 2, 140, 40)
WRITTEN = {"by tokens": torch.full((1, 140, 2, 40), 7.0).half().transpose(1, 2), "by heads": torch.full((1, 2, 140, 40), 7.0).half()}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the kernel computes of each case, and of one of them in each of WRITTEN."""
    files = [tmp_path_factory.mktemp("fused") / name for name in ("cases.pt", "outputs.pt")]
    cases = [(*case, None) for case in CASES.values()]
    cases += [(*CASES["d 40 image in the middle alpha 3.0"], whole) for whole in WRITTEN.values()]
    torch.save(cases, files[0])
    subprocess.run([sys.executable, INTERPRETED, *files], check=True)
    return dict(zip([*CASES, *WRITTEN], torch.load(files[1])))


@needs_interpreter
@pytest.mark.parametrize("case", CASES)
def test_it_rounds_at_most_twice_as_much_as_a_plain_call(outputs, case):
    (q, k, v), alpha, (first, last) = CASES[case]
    tokens, image = slice(first, last), torch.zeros(q.shape[2], dtype=torch.bool)
    image[tokens] = True
    exact = [t.double() for t in (q, k, v)]
    truth = dense.circulation(*exact, alpha if isinstance(alpha, float) else alpha.double(), 1, image=image)[:, :, tokens]
    plain = F.scaled_dot_product_attention(q, k, v)
    assert outputs[case].dtype == torch.float16
    assert change(outputs[case], truth) <= 2 * change(plain, F.scaled_dot_product_attention(*exact))


@needs_interpreter
@pytest.mark.parametrize("case", CASES)
def test_its_output_lies_as_the_model_wants_it(outputs, case):
    assert outputs[case].transpose(1, 2).is_contiguous()


@needs_interpreter
@pytest.mark.parametrize("case", WRITTEN)
def test_it_writes_into_a_part_of_an_output_and_nowhere_else(outputs, case):
    """The image's rows, where those of the text come from elsewhere."""
    (_, _, tokens), whole = CASES["d 40 image in the middle alpha 3.0"], outputs[case]
    assert torch.equal(whole[:, :, slice(*tokens)], outputs["d 40 image in the middle alpha 3.0"])
    whole[:, :, slice(*tokens)] = 7
    assert (whole == 7).all()


@pytest.fixture
def wanted(monkeypatch):
    """A machine on which the kernel can be used. There are no numbers on it."""
    monkeypatch.setenv("CIRCULATION_FUSED", "1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 9))
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with FakeTensorMode():
        yield


def on_gpu(d=64, dtype=torch.float16, device="cuda", heads=4):
    return [torch.empty(2, 32, heads * d, dtype=dtype, device=device).unflatten(-1, (heads, d)).transpose(1, 2) for _ in range(3)]


@pytest.mark.parametrize("d", [40, 64, 80, 96, 128])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_supports(wanted, d, dtype):
    q, k, v = on_gpu(d, dtype)
    assert fused.supports(q, k, v)
    assert fused.supports(q[1:], k[1:], v[1:])
    assert fused.supports(*torch.empty(2, 32, 3, 4, d, dtype=dtype, device="cuda").permute(2, 0, 3, 1, 4))


def test_supports_no_other_inputs(wanted):
    q, k, v = on_gpu()
    assert not fused.supports(*on_gpu(device="cpu"))
    assert not fused.supports(*on_gpu(dtype=torch.float32))
    assert not fused.supports(*on_gpu(d=160))
    assert not fused.supports(*on_gpu(d=36))
    assert not fused.supports(q, k[:, :, :16], v[:, :, :16])
    assert not fused.supports(q, k, v.to(torch.bfloat16))
    assert not fused.supports(q, k, v.mT.contiguous().mT)
    assert not fused.supports(*torch.empty(3, 2, 4, 32, 65, dtype=torch.float16, device="cuda")[..., 1:].unbind())


@pytest.mark.parametrize("wish", ["", "0", "true"])
def test_it_is_off_unless_wanted(wanted, monkeypatch, wish):
    monkeypatch.setenv("CIRCULATION_FUSED", wish)
    assert not fused.supports(*on_gpu())
    monkeypatch.delenv("CIRCULATION_FUSED")
    assert not fused.supports(*on_gpu())


@pytest.mark.parametrize("capability, supported", [
    ((7, 5), False), ((8, 0), True), ((8, 6), True), ((8, 9), True), ((9, 0), True), ((10, 0), False), ((12, 0), True)
])  # fmt: skip
def test_supports_gpus_that_it_was_compiled_for(wanted, monkeypatch, capability, supported):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert fused.supports(*on_gpu()) == supported


@pytest.mark.parametrize("owner, name, value", [
    (fused, "find_spec", lambda name: None),  # no Triton
    (torch.version, "cuda", None),  # a GPU of AMD's
    (torch, "__version__", TorchVersion("2.8.0")),  # an older Triton
])  # fmt: skip
def test_supports_no_other_machines(wanted, monkeypatch, owner, name, value):
    assert fused.supports(*on_gpu())
    monkeypatch.setattr(owner, name, value)
    assert not fused.supports(*on_gpu())


def test_nothing_imports_triton_unless_it_is_used():
    code = "import sys, engine.method.fast.fused; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=INTERPRETED.parents[2] / "nodes", check=True)


VIEWS = ("prim::device", "aten::expand", "aten::select.int", "aten::transpose.int")


class Operators(TorchDispatchMode):
    """The names of all operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(operator.name())
        return operator(*args, **(kwargs or {}))


@needs_triton
@pytest.mark.parametrize("alpha", ["number", "per head"])
@pytest.mark.parametrize("tokens, count", [(slice(None), 32), (slice(5, None), 27), (slice(0, 20), 20)])
def test_without_numbers_it_is_one_operator_besides_views(wanted, alpha, tokens, count):
    q, k, v = on_gpu()
    alpha = 0.5 if alpha == "number" else torch.ones(1, 4, 1, 1, device="cuda")
    with Operators() as ran:
        out = fused.attention(q, k, v, alpha, tokens)
    assert [name for name in ran.names if name not in VIEWS] == ["aten::new_empty", "circulation::scaled_dot_product_attention"]
    assert (out.shape, out.dtype, out.device) == ((2, 4, count, 64), q.dtype, q.device)
    assert out.transpose(1, 2).is_contiguous()
    with Operators() as ran:
        assert fused.attention(q, k, v, alpha, tokens, out) is out
    assert [name for name in ran.names if name not in VIEWS] == ["circulation::scaled_dot_product_attention"]
