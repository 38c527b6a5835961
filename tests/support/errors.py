"""How far results lie from what they should be."""

import torch


def change(a: torch.Tensor, b: torch.Tensor) -> float:
    """‖a − b‖ / ‖b‖, computed in float64."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm())


def assert_rounding_at_most_twice(fast, plain, exact, negligible=0.0):
    """The error of the fast path is at most twice that of the plain path in the same number format, both against float64.

    A fixed tolerance would fit one number format and one size: too strict for the next, or so loose that it hides a mistake.
    The plain path, the formula written out with its L×L matrices, shows how much rounding there has to be. The fast path
    rounds in other places, so it may be unlucky: hence twice. Errors below `negligible` pass, where the plain path may round
    to the very truth.
    """
    error, usual = change(fast, exact), change(plain, exact)
    assert error <= max(2 * usual, negligible), f"error {error:.2e}, the plain path's {usual:.2e}"
