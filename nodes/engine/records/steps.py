"""Where the calls of a sampler lie on its schedule."""

from collections.abc import Iterable, Sequence


class StepFollower:
    """Follows a sampler along its sigmas in order, whether they fall, rise or stay.

    A place is a number of steps from 0, with a fraction between two sigmas of the schedule.
    """

    def __init__(self, schedule: Sequence[float]):
        self._schedule = schedule
        self._step = 0
        self._visited = False  # whether there was a call at this step

    def place(self, sigma: float) -> float:
        """Of the next call: in the step where the last one was, or the first later one whose two sigmas hold it."""
        for step in range(self._step, len(self._schedule) - 1):
            if self._holds(step, sigma):
                return self._go_to(step, sigma)
        return self._go_to(self._step, sigma)

    def correct(self, place: float, sigma: float, step: int) -> float:
        """Of the last call, when the sampler says which step it was for: samplers may ask a little beside their schedule."""
        if step >= len(self._schedule) - 1 or _near(sigma, self._schedule[int(place)]):
            return place
        return self._go_to(step, sigma)

    def _holds(self, step: int, sigma: float) -> bool:
        start, end = self._schedule[step], self._schedule[step + 1]
        if _near(start, end):
            return _near(sigma, start) and not (step == self._step and self._visited)
        return _near(sigma, start) or (not _near(sigma, end) and min(start, end) < sigma < max(start, end))

    def _go_to(self, step: int, sigma: float) -> float:
        self._step, self._visited = step, True
        if step + 1 >= len(self._schedule):
            return float(step)
        start, end = self._schedule[step], self._schedule[step + 1]
        fraction = 0.0 if _near(start, sigma) or start == end else (start - sigma) / (start - end)
        return step + min(max(fraction, 0.0), 0.999)


def places(sigmas: Iterable[float], schedule: Sequence[float]) -> list[float]:
    """Of all calls of a run, in order, on its schedule or on another one's."""
    follower = StepFollower(schedule)
    return [follower.place(sigma) for sigma in sigmas]


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-4 * max(abs(a), abs(b))  # samplers compute with sigma before they hand it over
