"""How many requests at once, and how many of them a minute. Pure rules: the time is an argument, in seconds."""

from typing import Any

from ..errors import BadRequestError

FIRST = 8
HIGHEST = 512
"""Requests in flight that "auto" begins with, and the most that it tries."""

CUT = 0.7
"""What is left of the limit when a provider says that it is too much."""

TOLERATED = 2.0
SLOW = 0.25
"""Latency may be so many times its base before it counts as a queue; a base below SLOW seconds counts as SLOW, for what
is that short measures this machine and not the model."""

SAMPLES = 16
DRIFT = 0.05
"""Answers whose mean is one sample of the latency, at the least; and how fast the base follows slower ones, so that a
change of the work itself is in time taken for what it is."""


class Pace:
    """How many requests may be in flight: up by what succeeds, down by refusals and by growing latency.

    Until the first trouble the limit doubles with each round of answers, then it grows by one a round. A refusal cuts
    it once, however many requests were refused with it: those sent before the cut say nothing about the new limit.

    Args:
        most: a ceiling, with which it also begins; None finds the limit, by the latency too.
    """

    def __init__(self, most: int | None = None) -> None:
        self.highest = HIGHEST if most is None else most
        self.limit = float(FIRST if most is None else most)
        self.resumes = 0.0
        self._by_latency = most is None
        self._doubling = most is None
        self._cut_at = float("-inf")
        self._base: float | None = None
        self._sum = 0.0
        self._count = 0

    def wait(self, now: float) -> float:
        """Seconds until anything may be sent: what a provider asked for with a refusal."""
        return max(0.0, self.resumes - now)

    def room(self, in_flight: int) -> bool:
        """Whether one more may be sent."""
        return in_flight < int(self.limit)

    def answered(self, now: float, seconds: float, in_flight: int) -> None:
        """An answer came after so many seconds; `in_flight` counts it."""
        if in_flight >= int(self.limit):  # else nothing was learnt: more were allowed than there were
            self.limit = min(self.limit + (1.0 if self._doubling else 1 / self.limit), self.highest)
        if not self._by_latency:
            return
        self._sum += seconds
        self._count += 1
        if self._count >= max(SAMPLES, self.limit):
            mean, self._sum, self._count = self._sum / self._count, 0.0, 0
            self._weigh(now, mean)

    def refused(self, now: float, seconds: float, retry_after: float | None = None) -> None:
        """A request sent so many seconds ago was too much for the provider, which may have said for how long."""
        if retry_after is not None:
            self.resumes = max(self.resumes, now + retry_after)
        if now - seconds > self._cut_at:
            self._cut(now, CUT)

    def _weigh(self, now: float, mean: float) -> None:
        if self._base is None or mean < self._base:
            self._base = mean
        bound = TOLERATED * max(self._base, SLOW)
        if mean > bound:
            self._cut(now, max(bound / mean, CUT))
        self._base += DRIFT * (mean - self._base)

    def _cut(self, now: float, share: float) -> None:
        self.limit = max(1.0, self.limit * share)
        self._doubling = False
        self._cut_at = now
        self._sum, self._count = 0.0, 0


class Rate:
    """So much a minute, spent evenly: a second's worth may be taken at once.

    What is taken is an estimate where the amount is known only afterwards; `take` corrects it, and what was overspent
    is waited for.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_second = per_minute / 60
        self.level = self.most = max(1.0, self.per_second)
        self._at = now

    def wait(self, now: float, amount: float) -> float:
        """Seconds until so much may be taken; more than a second's worth is taken in advance, and then waited for."""
        self.level = min(self.most, self.level + (now - self._at) * self.per_second)
        self._at = now
        # A rounding error must not be a reason to wake up once more.
        missing = min(amount, self.most) - self.level
        return missing / self.per_second if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """Spends it; a negative amount is given back."""
        self.level -= amount


class Limits:
    """What holds for the requests of a run, or of runs one after the other.

    Args:
        max_in_flight: a number, or "auto".
        rpm, tpm: requests and tokens a minute; None for as many as there are.
        now: the time.

    Raises:
        BadRequestError: what can be no limit.
    """

    def __init__(self, max_in_flight: Any, rpm: float | None, tpm: float | None, now: float) -> None:
        most = None if max_in_flight == "auto" else max_in_flight
        if most is not None and not (isinstance(most, int) and most > 0):
            raise BadRequestError(f"max_in_flight must be 'auto' or above 0, not {most!r}", param="max_in_flight")
        for name, limit in (("rpm", rpm), ("tpm", tpm)):
            if limit is not None and not limit > 0:
                raise BadRequestError(f"{name} must be above 0 a minute, not {limit!r}", param=name)
        self.pace = Pace(most)
        self.requests = None if rpm is None else Rate(rpm, now)
        self.tokens = None if tpm is None else Rate(tpm, now)
        self.failing = 0
        """Rows, the last ones in succession, that failed as all others would."""
