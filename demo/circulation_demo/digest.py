"""Names for files that must not outlive what they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy
import torch


def digest(*parts) -> str:
    """Sixteen hex digits for values of JSON's types, arrays and CPU tensors (their type, shape and bytes) and files (their contents)."""
    return sha256(json.dumps(parts, sort_keys=True, default=_contents).encode()).hexdigest()[:16]


def _contents(part) -> str:
    if isinstance(part, Path):
        return sha256(part.read_bytes()).hexdigest()
    array = numpy.asarray(part)
    if array.dtype.hasobject:
        raise TypeError(f"A digest of {type(part).__name__} would not be one of its contents.")
    return f"{array.dtype}{array.shape}{sha256(array.tobytes()).hexdigest()}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Rounding within does not depend on how many threads share the work, so digests of results can be compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
