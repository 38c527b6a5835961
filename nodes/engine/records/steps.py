"""Where the calls of a sampler lie on its schedule, and in the whole of the sampling."""

from collections.abc import Callable, Iterable, Sequence


class StepFollower:
    """Follows a sampler along its sigmas in order, whether they fall, rise or stay.

    A place is a number of steps from 0, with a fraction between two sigmas of the schedule.
    """

    def __init__(self, schedule: Sequence[float]):
        self._schedule = schedule
        self._step = 0
        self._visited = False  # whether there was a call at this step
        self._done = False  # whether the sampler has said so of one that was made where the step starts
        self._reported = True  # whether the sampler has said which step the last call was for
        self._beside = False  # whether a call turned out to be for another step than its sigma told
        self._between = False  # whether there are calls between two sigmas of the schedule that nothing is said of
        self.certain = False  # whether the last call is for the step where it was placed

    def place(self, sigma: float) -> float:
        """Of the next call: in the step where the last one was, or the first later one whose two sigmas hold it.

        Where there is none, samplers start again: then the first earlier step that starts there.
        """
        later, earlier = range(self._step, len(self._schedule) - 1), range(self._step)
        step = next((step for step in later if self._holds(step, sigma)), None)
        if step is None:
            step = next((step for step in earlier if _near(sigma, self._schedule[step])), self._step)
        at_its_start = _near(sigma, self._schedule[step])
        self._between = self._between or not self._reported
        self._reported = at_its_start
        self.certain = self._visited and not self._beside and (at_its_start or self._between)
        return self._go_to(step, sigma)

    def correct(self, place: float, sigma: float, step: int) -> float:
        """Of the last call, when the sampler says which step it was for: samplers may ask a little beside their schedule."""
        self._reported = True
        if step >= len(self._schedule) - 1:
            return place
        at_its_start = _near(sigma, self._schedule[step])
        if not at_its_start and _near(sigma, self._schedule[int(place)]):
            return place
        self._beside = self._beside or step != int(place)
        place = self._go_to(step, sigma)
        self._done = at_its_start
        return place

    def _holds(self, step: int, sigma: float) -> bool:
        start, end = self._schedule[step], self._schedule[step + 1]
        if _near(start, sigma):
            over = self._visited if _near(start, end) else self._done
            return not (over and step == self._step)
        return not _near(start, end) and not _near(sigma, end) and min(start, end) < sigma < max(start, end)

    def _go_to(self, step: int, sigma: float) -> float:
        self._done = self._done and step == self._step
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


def percent_at(sigma: float, percent_to_sigma: Callable[[float], float]) -> float:
    """Where in the sampling a sigma lies, from 0 to 1, as start_percent counts it. `percent_to_sigma` is the model's own."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if percent_to_sigma(middle) >= sigma else (low, middle)
    return round(low, 4)


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-4 * max(abs(a), abs(b))  # samplers compute with sigma before they hand it over
