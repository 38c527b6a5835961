"""The kernel of `fused`, and the operator by which torch knows it. Needs Triton: to be imported only where it is used.

α → −α exchanges c₁ and c₂, so where α < 0 the kernel exchanges q and k instead. That leaves, with r = (1 − |α|) / (1 + |α|) in (−1, 1],

    c₁ q·k + c₂ k·q = (1 + |α|)/2 · (q·k + r k·q)

No α divides by zero; both products add up in one accumulator; r is put once on the k of a program's own tokens, and what it multiplies
with stays as it came. The softmax goes on from one tile of keys to the next as in FlashAttention (Dao et al., arXiv:2205.14135).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634
UNIT = 8  # elements in which strides are counted: so the compiler knows that it can load 16 bytes at a time


class Tiles(NamedTuple):
    """Queries and keys that are multiplied at a time, and what a program may take."""

    queries: int
    keys: int
    warps: int
    stages: int  # tiles of keys in shared memory at once
    registers: int | None = None  # of a thread, at most; None: as many as the compiler likes


# By the largest head size and the major compute capability, 8 for all that are not 9. tests/kernels/NOTES.md says why these.
TILES = {
    (64, 8): Tiles(64, 32, 4, 2, 168),
    (128, 8): Tiles(128, 32, 8, 2),
    (64, 9): Tiles(128, 128, 8, 2),
    (128, 9): Tiles(128, 64, 8, 2),
}

INTEGERS = (
    "heads", "length", "first", "last", "q_row", "q_head", "q_token", "k_row", "k_head", "k_token", "v_row", "v_head", "v_token",
    "out_row", "out_head", "out_token", "alpha_row", "alpha_head",
)  # fmt: skip


@triton.jit(do_not_specialize=INTEGERS)
def circulated_attention(
    q, k, v, out, alpha, scale, heads, length, first, last,
    q_row, q_head, q_token, k_row, k_head, k_token, v_row, v_head, v_token, out_row, out_head, out_token, alpha_row, alpha_head,
    D: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, UNIT: tl.constexpr,
    RANGE: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """softmax(M_α) v of the tokens first…last, QUERIES of one head in each program.

    RANGE: whether there are other keys than those of the tokens; M stays as it is there. PER_HEAD: whether `alpha`
    is a pointer. `scale` is log₂e / √D.
    """
    tiles = tl.cdiv(last - first, QUERIES)
    start = first + tl.program_id(0) % tiles * QUERIES
    row = (tl.program_id(0) // tiles // heads).to(tl.int64)
    head = (tl.program_id(0) // tiles % heads).to(tl.int64)
    q += (row * q_row + head * q_head) * UNIT
    k += (row * k_row + head * k_head) * UNIT
    v += (row * v_row + head * v_head) * UNIT
    if PER_HEAD:
        alpha = tl.load(alpha + row * alpha_row + head * alpha_head)

    retrieved = tl.zeros([QUERIES, WIDTH], tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    for part in tl.static_range(3 if RANGE else 1):  # the tokens' own keys, those before them, those after them
        if part == 0:
            begin, end, factor = first, last, scale * (1 + tl.abs(alpha)) / 2
        elif part == 1:
            begin, end, factor = 0, first, scale
        else:
            begin, end = last, length
        if part < 2:
            if alpha < 0:  # and in part 1 back again
                q, k = k, q
                q_token, k_token = k_token, q_token
            own_q = load(q, start, last, q_token, D, WIDTH, QUERIES, UNIT, True)
        if part == 0:
            own_k = load(k, start, last, k_token, D, WIDTH, QUERIES, UNIT, True)
            own_k = (own_k.to(tl.float32) * ((1 - tl.abs(alpha)) / (1 + tl.abs(alpha)))).to(own_k.dtype)
        whole = begin + (end - begin) // KEYS * KEYS
        for cut in tl.static_range(2):  # whole tiles, then the rest
            for key in tl.range(  # only the first of these loops is fast at the cost of registers: the others do less
                whole if cut else begin, end if cut else whole, KEYS, num_stages=1 if cut else None, disable_licm=cut or part > 0
            ):
                logits = tl.dot(own_q, load(k, key, end, k_token, D, WIDTH, KEYS, UNIT, cut).T)
                if part == 0:
                    logits = tl.dot(own_k, load(q, key, end, q_token, D, WIDTH, KEYS, UNIT, cut).T, logits)
                if cut:
                    logits = tl.where((key + tl.arange(0, KEYS) < end)[None, :], logits, float("-inf"))
                new_largest = tl.maximum(largest, tl.max(logits, 1) * factor)
                weights = tl.exp2(logits * factor - new_largest[:, None])
                shrink = tl.exp2(largest - new_largest)
                values = load(v, key, end, v_token, D, WIDTH, KEYS, UNIT, cut)
                retrieved = tl.dot(weights.to(values.dtype), values, retrieved * shrink[:, None])
                total = total * shrink + tl.sum(weights, 1)
                largest = new_largest

    tokens, channels = start - first + tl.arange(0, QUERIES), tl.arange(0, WIDTH)
    out += (row * out_row + head * out_head) * UNIT
    places = out + tokens.to(tl.int64)[:, None] * (out_token * UNIT) + channels[None, :]
    inside = (tokens < last - first)[:, None] & (channels < D)[None, :]
    tl.store(places, (retrieved / total[:, None]).to(out.dtype.element_ty), inside)


@triton.jit
def load(
    head, token, end, stride,
    D: tl.constexpr, WIDTH: tl.constexpr, COUNT: tl.constexpr, UNIT: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """COUNT tokens of a head from `token` on, (COUNT, WIDTH): 0 past its D channels and, if CUT, from token `end` on."""
    tokens, channels = tl.arange(0, COUNT), tl.arange(0, WIDTH)
    places = head + (token + tokens).to(tl.int64)[:, None] * (stride * UNIT) + channels[None, :]
    if CUT:
        inside = (token + tokens < end)[:, None]
        if WIDTH > D:
            inside &= (channels < D)[None, :]
        loaded = tl.load(places, inside, 0.0)
    elif WIDTH > D:
        loaded = tl.load(places, (channels < D)[None, :], 0.0)
    else:
        loaded = tl.load(places)
    return loaded


SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor(a!) out, float alpha, Tensor? alpha_of_heads, int first) -> ()"


@torch.library.custom_op("circulation::scaled_dot_product_attention", mutates_args=("out",), schema=SCHEMA)
def write_attention(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, alpha: float, alpha_of_heads: Tensor | None, first: int
) -> None:  # fmt: skip
    """Write softmax(M_α) v of N tokens from `first` on into `out`, (B, H, N, d). All are as `fused.supports` wants them.

    `alpha_of_heads`, (B, H) float32, takes the place of `alpha` where it is given.
    """
    (rows, heads, length, d), count = q.shape, out.shape[2]
    strides = [stride // UNIT for t in (q, k, v, out) for stride in t.stride()[:3]]
    strides += (0, 0) if alpha_of_heads is None else alpha_of_heads.stride()
    tiles = tiles_for(d, torch.cuda.get_device_capability(q.device) if q.is_cuda else (8, 0))
    with torch.cuda.device_of(q):
        circulated_attention[(rows * heads * triton.cdiv(count, tiles.queries),)](
            q, k, v, out, alpha if alpha_of_heads is None else alpha_of_heads, LOG2_E * d**-0.5, heads, length, first, first + count,
            *strides, **constants(d, tiles, count < length, alpha_of_heads is not None), **options(tiles),
        )  # fmt: skip


def tiles_for(d: int, capability: tuple[int, int]) -> Tiles:
    return TILES[64 if d <= 64 else 128, 9 if capability[0] == 9 else 8]


def constants(d: int, tiles: Tiles, in_range: bool, per_head: bool) -> dict[str, int]:
    """The kernel's constexpr arguments."""
    width = max(16, triton.next_power_of_2(d))
    return dict(D=d, WIDTH=width, QUERIES=tiles.queries, KEYS=tiles.keys, UNIT=UNIT, RANGE=in_range, PER_HEAD=per_head)


def options(tiles: Tiles) -> dict[str, int | None]:
    """Triton's own."""
    return dict(num_warps=tiles.warps, num_stages=tiles.stages, maxnreg=tiles.registers)
