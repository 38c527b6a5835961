"""The fused kernel on a GPU: numbers, memory, and no waiting. In Triton's interpreter tests/unit/test_fused.py checks it anywhere."""

import pytest
import torch
import torch.nn.functional as F
from support import dense, memory
from support.errors import change
from support.host import engine

fused = engine("method.fast.fused")


@pytest.fixture(autouse=True)
def wanted(monkeypatch):
    monkeypatch.setenv("CIRCULATION_FUSED", "1")
    if not (torch.cuda.is_available() and fused.supports(*qkv(16, 64))):
        pytest.skip("There is no GPU here that the kernel is for.")


def qkv(length, d, heads=4, rows=2, dtype=torch.float16):
    """q, k and v, (rows, heads, length, d), by one projection."""
    return torch.randn(rows, length, 3, heads, d, device="cuda", dtype=dtype).permute(2, 0, 3, 1, 4).unbind()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("d", [40, 64, 128])
@pytest.mark.parametrize("length, first, last", [(1000, 0, 1000), (1024, 77, 1024), (900, 0, 513), (1100, 256, 999)])
@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.05, 3.0, "per head"])
def test_it_rounds_at_most_twice_as_much_as_a_plain_call(dtype, d, length, first, last, alpha):
    q, k, v = qkv(length, d, dtype=dtype)
    image = torch.zeros(length, dtype=torch.bool, device="cuda")
    image[first:last] = True
    if alpha == "per head":
        alpha = torch.tensor([-1.0, 0.5, 1.05, 3.0], device="cuda").reshape(1, 4, 1, 1)
    exact = [t.double() for t in (q, k, v)]
    truth = dense.circulation(*exact, alpha.double() if isinstance(alpha, torch.Tensor) else alpha, 1, image=image)[:, :, first:last]
    ours = fused.attention(q, k, v, alpha, slice(first, last))
    plain = F.scaled_dot_product_attention(q, k, v)
    assert change(ours, truth) <= 2 * change(plain, F.scaled_dot_product_attention(*exact))


def test_it_finds_the_last_tokens_of_a_long_video():
    """Those of a second row lie more than 2^31 elements behind the first."""
    length, heads, d, tokens = 75600, 40, 128, slice(75590, 75600)
    if torch.cuda.mem_get_info()[0] < 10 * 2**30:
        pytest.skip("This takes 8 GB of the GPU's memory.")
    q, k, v = qkv(length, d, heads, dtype=torch.bfloat16)
    assert q[1, -1, tokens].storage_offset() > 2**31
    out = fused.attention(q, k, v, 1.15)[1:, -1:, tokens]
    q, k, v = (t[1:, -1:].double() for t in (q, k, v))
    m_alpha = ((1 + 1.15) / 2 * q[:, :, tokens] @ k.mT + (1 - 1.15) / 2 * k[:, :, tokens] @ q.mT) / d**0.5
    assert change(out, m_alpha.softmax(-1) @ v) < 2**-7


@pytest.mark.parametrize("alpha", ["number", "per head"])
@pytest.mark.parametrize("tokens", [slice(None), slice(77, 4096)], ids=str)
def test_it_takes_memory_for_its_output_alone_and_does_not_wait(tokens, alpha):
    q, k, v = qkv(4096, 64)
    alpha = 0.5 if alpha == "number" else torch.ones(2, 1, 1, 1, device="cuda")
    call = lambda: fused.attention(q, k, v, alpha, tokens)  # noqa: E731
    size = call().numel() * q.element_size()  # compiled now
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert memory.peak(call, "cuda") <= size + 2**21  # what torch's allocator rounds up to
    finally:
        torch.cuda.set_sync_debug_mode("default")
