"""Code that torch.compile makes while Circulation acts, kept apart from what it makes without."""

import contextlib
import sys
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_inside = 0  # calls of models, in all threads
_given = False


@contextlib.contextmanager
def code_of_its_own() -> Iterator[None]:
    """What is compiled in here is used in here alone.

    Compile nodes tell torch not to check transformer_options, in which we come and go. It goes on checking a few global settings.
    The one that is turned here says what happens if deterministic algorithms are demanded in vain, and means nothing while they
    are not demanded. Where they are, or nothing was ever compiled, nothing is done.
    """
    if "torch._dynamo" not in sys.modules or torch.are_deterministic_algorithms_enabled():
        yield
        return
    _turn(1)
    try:
        yield
    finally:
        _turn(-1)


def _turn(calls: int) -> None:
    global _inside, _given
    with _lock:
        if not _inside:
            _given = torch.is_deterministic_algorithms_warn_only_enabled()
        _inside += calls
        torch.use_deterministic_algorithms(False, warn_only=_given != bool(_inside))
