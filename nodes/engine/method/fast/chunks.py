"""The only place that says how much is computed at a time. Every chunk is a slice of heads, queries or channels."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Elements of q in a chunk of several heads. On a CPU as few as keep what is computed for them in the cache; elsewhere so many
# that starting the work takes no time worth naming, and as few as bound the memory: doubled heads take four times as much,
# eight times where values are padded to their width.
MAX_ELEMENTS_CPU = 2**16
MAX_ELEMENTS = 2**24
MAX_DOUBLED, MAX_DOUBLED_PADDED = 2**23, 2**22

# A CPU tile of attention
MAX_LOGITS_OF_A_HEAD = 2**19
MIN_QUERIES, MAX_QUERIES = 256, 512  # of one head, where their logits are more or fewer than that
MAX_LOGITS_OF_SEVERAL_HEADS = 2**17
MIN_ROWS_OF_A_THREAD = 128  # fewer are multiplied faster by all threads together


def head_chunks(q: Tensor, padded: bool) -> Iterator[slice]:
    """Chunks of the heads of q, (B, H, L, d), to be doubled; `padded` where values are then padded to their width."""
    return even_slices(q.shape[1], chunk_size(q[:, 0].numel(), q.device, MAX_DOUBLED_PADDED if padded else MAX_DOUBLED))


def head_chunks_for_products(q: Tensor) -> Iterator[slice]:
    """Chunks of the heads of q, (B, H, L, d), for work whose largest temporaries are d×d products or half as long as q."""
    batch, heads, length, d = q.shape
    return even_slices(heads, chunk_size(batch * d * max(length // 2, 2 * d), q.device))


def single_heads(q: Tensor) -> Iterator[slice]:
    """The heads of q, (B, H, L, d), one at a time."""
    return (slice(head, head + 1) for head in range(q.shape[1]))


def query_chunks(q: Tensor, x: Tensor) -> Iterator[slice]:
    """Chunks of the queries of one head, (B, 1, L, d), for retrieving X, (B, L, C).

    On a CPU one tile, at most half of the queries, so that two results are no larger than X. Elsewhere bounded, because
    torch's fallback stores a chunk's logits twice.
    """
    batch, _, length, _ = q.shape
    if q.device.type == "cpu":
        return even_slices(length, min(MIN_QUERIES, math.ceil(length / 2)))
    return even_slices(length, chunk_size(batch * (length + x.shape[-1]) * 3 // 8, q.device))


def channel_chunks(x: Tensor, d: int) -> tuple[Tensor, ...]:
    """X, (B, L, C), in chunks of channels to be retrieved and measured.

    Besides its L elements each channel takes 4d of products, which is much where tokens are few.
    """
    return x.chunk(2 if x.shape[-2] <= 4 * d else 1, dim=-1)


def tile_shape(heads: int, queries: int, keys: int) -> tuple[int, int]:
    """(heads, queries) of a CPU tile of attention."""
    rows = min(queries, MAX_QUERIES, max(MIN_QUERIES, MAX_LOGITS_OF_A_HEAD // keys))
    return min(heads, max(1, MAX_LOGITS_OF_SEVERAL_HEADS // (rows * keys))), rows


def parts_of_tokens(q: Tensor, channels: int) -> int:
    """Into how many parts the tokens of q, (B, heads, L, d), are divided to be measured: on a CPU one for each thread,
    which then finds in its own cache what it has written.

    Fewer where they would be short, or the products of all of them larger than the retrieval's `channels`.
    """
    (batch, heads, tokens, d), threads = q.shape, torch.get_num_threads() if q.device.type == "cpu" else 1
    most = tokens * channels // (d * (2 * d + channels))
    return math.gcd(tokens, max(1, min(threads // (batch * heads), tokens // MIN_ROWS_OF_A_THREAD, most)))


def even_slices(total: int, most: int) -> Iterator[slice]:
    """Slices of about equal size, none longer than `most`, that cover 0…total."""
    size = math.ceil(total / math.ceil(total / most))
    return (slice(first, first + size) for first in range(0, total, size))


def chunk_size(elements: int, device: torch.device, most: int = MAX_ELEMENTS) -> int:
    """How many items of so many elements each fit in one chunk on this device, of `most` elements where it is no CPU; at least 1."""
    return max(1, (MAX_ELEMENTS_CPU if device.type == "cpu" else most) // max(1, elements))


def take_heads(value: float | Tensor, heads: slice) -> float | Tensor:
    """`value[:, heads]`, or `value` itself if it is a number or the same for all heads."""
    return value[:, heads] if isinstance(value, Tensor) and value.shape[1] > 1 else value


def take_queries(mask: Tensor | None, queries: slice) -> Tensor | None:
    """The queries' rows of a mask that broadcasts to (B, H, L, L)."""
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., queries, :]
