"""Finds loops in steps, one step at a time, with work that does not grow with the number of steps.

Steps come in the order in which they are completed. What an answer alone tells (degenerate answers, requests that are
sent again, conversations that are cut down) is heard when the answer is there; the rest when its outcome is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from harness.analysis.loops.kinds import EXCLUSIVE, KindName, Settings
from harness.analysis.steps.rebuild import Answer, Step

LINES_OF_A_READING = 3
LEAST_WORDS = 20  # of an answer that can be degenerate


@dataclass(slots=True)
class Loop:
    """A stretch of steps, by the indices of their calls, both included."""

    kind: KindName
    thread: int
    onset: int
    end: int
    steps: int
    """That are part of it, from the onset on."""
    alarm: int | None
    """The call whose outcome (or answer) made the pattern plain; None where a degenerate answer stayed alone."""


class Detector:
    """One run. `hear` every answer, `feed` every completed step, then `feed_last` those that never were."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.useful: list[int] = []
        """The calls whose steps changed a file, read something new or brought a new result, as they were completed."""
        self._found: list[Loop] = []
        self._grown: dict[int, Loop] = {}
        self._threads: dict[int, _Thread] = {}
        self._lines: set[int] = set()  # read since the files last changed
        self._readings: dict[frozenset[int], int] = {}  # times that just these lines were read since then
        self._outcomes: dict[str, set[str]] = {}  # by action, since the files last changed
        self._actions: set[str] = set()  # in the whole run
        self._states = _States(self)

    def hear(self, said: Answer) -> None:
        """An answer is there."""
        thread = self._thread(said.thread)
        thread.degenerate.add(said.call, True if self._is_degenerate(said) else None)
        if said.request == "again":
            thread.again.add(said.call, True)
        else:
            thread.again.add(said.call, None)
            if said.request == "cut_down" or said.status == "context_overflow":
                anew = said.action in self._actions or said.status == "context_overflow"
                thread.cuts.add(said.call, True if anew else None)
        if said.action:
            self._actions.add(said.action)

    def feed(self, step: Step) -> None:
        """A step is complete: its outcome is known, or the answer was thrown away."""
        said, thread = step.said, self._thread(step.thread)
        if step.discarded or step.outcome is None:
            # Thrown away and asked anew, after a complaint: the framework keeps neither such an answer nor its own.
            thread.unreadable.go_on(said.call, said.status == "ok")
            return
        call, action, outcome = said.call, said.action, step.outcome
        changed = said.before is not None and step.after is not None and said.before != step.after
        # What changed something was carried out, whatever its outcome reads like.
        unreadable = step.unreadable and not changed
        readable = not unreadable and said.status == "ok"
        thread.unreadable.add(call, True if unreadable else None)
        news, worn = self._read(step)
        if readable and action:
            news = self._is_useful(step, changed, news)
        if news:
            thread.talk.add(call, None)
        thread.talk.add(call, True if readable and not action else None)
        if not readable:
            thread.error.add(call, None)
            return
        exact = action and not changed
        same, error = thread.same.loop, thread.error
        error.add(call, step.error if exact else None, plain=same is None or same.kind != "repeated_error")
        key = (action, outcome) if exact else None
        thread.same.add(call, key, failed=step.failed, plain=error.loop is None or not step.failed)
        thread.cycle.add(call, (action, outcome) if exact else None)
        if not action:
            return
        found = thread.same.loop or thread.error.loop or thread.cycle.loop or self._states.loop
        stale = not news and not found
        reading = stale and not changed and not step.failed and len(step.lines) >= LINES_OF_A_READING
        thread.reading.add(call, True if reading else None, plain=worn)
        thread.stretch.add(call, True if stale else None)
        thread.last_action = action

    def feed_last(self, steps: Iterable[Step]) -> None:
        """The run is over: steps of which nothing came back, in the order of their calls.

        What came of them is not known, so a loop that they go on with goes on to them, and they begin none; but for the
        last of several answers that can't be read, by which frameworks end a run.
        """
        for step in steps:
            said, thread = step.said, self._thread(step.thread)
            if step.discarded or said.status != "ok":
                continue
            thread.unreadable.go_on(said.call, not said.clear)
            if not said.action:
                thread.talk.go_on(said.call, thread.talk.loop is not None)
                continue
            for series in (thread.same, thread.error):
                series.go_on(said.call, series.loop is not None and said.action == thread.last_action)
            thread.cycle.go_on(said.call, said.action)
            for series in (thread.reading, thread.stretch):
                series.go_on(said.call, series.loop is not None and said.action in self._outcomes)

    def grown(self) -> list[Loop]:
        """The loops that are plain and got another step since this was last asked for."""
        grown, self._grown = list(self._grown.values()), {}
        return grown

    def loops(self) -> list[Loop]:
        """All loops so far, by onset: those of one kind that touch made one, and of kinds that exclude each other the
        more exact one on the same steps."""
        return _settled(self._found, sorted(self.useful))

    def begin(self, kind: KindName, thread: int, onset: int) -> Loop:
        loop = Loop(kind, thread, onset, onset, 0, None)
        self._found.append(loop)
        return loop

    def grow(self, loop: Loop, call: int, steps: int, plain: bool = True) -> None:
        """It has now so many steps, of which this is the last."""
        loop.end, loop.steps = call, steps
        if plain:
            loop.alarm = call if loop.alarm is None else loop.alarm
            self._grown[id(loop)] = loop

    def _thread(self, number: int) -> _Thread:
        thread = self._threads.get(number)
        if thread is None:
            thread = self._threads[number] = _Thread.of(self, number)
        return thread

    def _is_degenerate(self, said: Answer) -> bool:
        settings, text = self.settings, said.repetition
        if text.words < LEAST_WORDS:
            return False
        if text.four_times >= settings.four_times:
            return True
        return (said.cut or not said.action) and (text.thrice >= settings.thrice or text.twice >= settings.twice)

    def _is_useful(self, step: Step, changed: bool, news: bool) -> bool:
        said, outcome = step.said, step.outcome
        assert outcome is not None
        new_state = self._states.is_new(said.before, step.after) if changed else False
        if new_state:
            self._lines.clear()
            self._readings.clear()
            self._outcomes.clear()
        before = self._outcomes.setdefault(said.action, set())
        other_outcome = bool(before) and outcome not in before
        before.add(outcome)
        useful = new_state or news or other_outcome
        if useful:
            self.useful.append(said.call)
        self._states.add(step, changed, new_state, useful)
        return useful

    def _read(self, step: Step) -> tuple[bool, bool]:
        """Whether the outcome has a line that was not read before, and whether just its lines were read twice before;
        they have been read once more from now on."""
        known = len(self._lines)
        self._lines.update(step.lines)
        lines = frozenset(step.lines)
        times = self._readings[lines] = self._readings.get(lines, 0) + 1
        return len(self._lines) > known, times > 2


class _Series:
    """Steps in a row that are alike: those with equal keys. None is no part of any series and ends it."""

    def __init__(
        self,
        detector: Detector,
        kind: KindName,
        thread: int,
        least: int,
        onset_at: int = 2,
        opens_at: int | None = None,
    ) -> None:
        self._detector = detector
        self._kind: KindName = kind
        self._thread = thread
        self._least = least
        self._onset_at = onset_at
        self._opens_at = opens_at or least
        self.key: Hashable = None
        self.loop: Loop | None = None
        self._length = 0
        self._onset = 0

    def add(self, call: int, key: Hashable, failed: bool = False, plain: bool = True) -> None:
        """`plain`: enough of them make a loop with this one."""
        if key is None or key != self.key:
            self.key, self.loop, self._length = key, None, 0
            if key is None:
                return
        self._length += 1
        if self._length == self._onset_at:
            self._onset = call
        if self.loop is None and self._length >= self._opens_at and plain:
            kind = "repeated_error" if failed and self._kind == "repeated_action" else self._kind
            self.loop = self._detector.begin(kind, self._thread, self._onset)
        if self.loop is not None:
            steps = self._length - self._onset_at + 1
            self._detector.grow(self.loop, call, steps, plain=self._length >= self._least)

    def go_on(self, call: int, alike: bool = True) -> None:
        """A last step of which nothing is known but that it is alike or not."""
        if alike and self.key is not None:
            self.add(call, self.key)


class _Cycle:
    """Two or more steps that follow each other in the same order, by how long each lag has matched."""

    def __init__(self, detector: Detector, thread: int) -> None:
        settings = detector.settings
        self._detector = detector
        self._thread = thread
        rounds, lags = settings.rounds, range(settings.longest_period + 1)
        self._enough = [max(2 * (rounds - 1), (rounds - 2) * lag + 1) for lag in lags]  # matches, by lag
        self._recent: deque[Hashable] = deque(maxlen=settings.longest_period)
        self._matched = [0] * (settings.longest_period + 1)
        self._onsets = [0] * (settings.longest_period + 1)
        self._period = 0
        self.loop: Loop | None = None

    def add(self, call: int, key: Hashable) -> None:
        if key is None:
            self._recent.clear()
            self._matched = [0] * len(self._matched)
            self.loop = None
            return
        recent, matched = self._recent, self._matched
        for lag in range(1, len(recent) + 1):
            if recent[-lag] == key:
                if matched[lag] == 0:
                    self._onsets[lag] = call
                matched[lag] += 1
            else:
                matched[lag] = 0
        recent.append(key)
        if self.loop is not None:
            if matched[self._period]:
                self._detector.grow(self.loop, call, matched[self._period])
                return
            self.loop = None
        for lag in range(2, len(matched)):
            # Steps that are all alike match at every lag; they are no cycle.
            if matched[lag] >= self._enough[lag] and matched[1] < lag - 1:
                self._period = lag
                self.loop = self._detector.begin("cycle", self._thread, self._onsets[lag])
                self._detector.grow(self.loop, call, matched[lag])
                return

    def go_on(self, call: int, action: str) -> None:
        if self.loop is not None and len(self._recent) >= self._period:
            key = self._recent[-self._period]
            if isinstance(key, tuple) and key[0] == action:
                self._detector.grow(self.loop, call, self.loop.steps + 1)


class _States:
    """The states that the work directory has been in, as far as the watch in the sandbox told."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._entered: dict[str, int] = {}
        self._returns = 0
        self._onset = 0
        self._steps = 0  # from the onset on
        self.loop: Loop | None = None

    def is_new(self, before: str | None, after: str | None) -> bool:
        assert before is not None
        assert after is not None
        self._entered.setdefault(before, 1)
        return after not in self._entered

    def add(self, step: Step, changed: bool, new: bool, useful: bool) -> None:
        call = step.call
        if new or (useful and self.loop is not None):
            self._returns = self._steps = 0
            self._entered = dict.fromkeys(self._entered, 1)
            self.loop = None
        if changed:
            assert step.after is not None
            self._entered[step.after] = self._entered.get(step.after, 0) + 1
            if not new:
                self._returns += 1
                if self._returns == 2:
                    self._onset, self._steps = call, 0
                if self.loop is None and self._entered[step.after] >= self._detector.settings.entries:
                    self.loop = self._detector.begin("edit_revert", step.thread, self._onset)
        self._steps += 1
        if self.loop is not None:
            self._detector.grow(self.loop, call, self._steps)


@dataclass(slots=True)
class _Thread:
    """What is counted for each conversation."""

    degenerate: _Series
    again: _Series
    cuts: _Series
    unreadable: _Series
    talk: _Series
    same: _Series
    error: _Series
    cycle: _Cycle
    reading: _Series
    stretch: _Series
    last_action: str = ""  # whose outcome is known

    @classmethod
    def of(cls, detector: Detector, number: int) -> _Thread:
        settings = detector.settings
        return cls(
            degenerate=_Series(detector, "degenerate", number, settings.degenerate, opens_at=1, onset_at=1),
            # Only what is sent again is counted, so the first time is not.
            again=_Series(detector, "retry_storm", number, settings.requests - 1, onset_at=1),
            cuts=_Series(detector, "context_thrash", number, settings.cuts),
            unreadable=_Series(detector, "format_errors", number, settings.unreadable),
            talk=_Series(detector, "monologue", number, settings.talk),
            same=_Series(detector, "repeated_action", number, settings.repeats),
            error=_Series(detector, "repeated_error", number, settings.repeats),
            cycle=_Cycle(detector, number),
            reading=_Series(detector, "re_reading", number, settings.rereads, onset_at=1),
            stretch=_Series(detector, "no_progress", number, settings.stretch, onset_at=1),
        )


def _settled(found: Iterable[Loop], useful: Sequence[int]) -> list[Loop]:
    def goes_on(before: Loop, loop: Loop) -> bool:
        """A degenerate answer is a loop of its own; what a framework interrupted by cutting its conversation down, say,
        goes on where nothing useful lies between."""
        if loop.onset <= before.end:
            return True
        return loop.kind in EXCLUSIVE and bisect_right(useful, before.end) == bisect_right(useful, loop.onset)

    merged: list[Loop] = []
    last: dict[tuple[str, int], Loop] = {}
    for loop in sorted(found, key=lambda loop: (loop.onset, loop.end)):
        before = last.get((loop.kind, loop.thread))
        if before is not None and goes_on(before, loop):
            overlap = loop.onset <= before.end
            before.steps = max(before.steps, loop.steps) if overlap else before.steps + loop.steps
            before.end = max(before.end, loop.end)
            before.alarm = loop.alarm if before.alarm is None else before.alarm
            continue
        last[loop.kind, loop.thread] = copy = replace(loop)
        merged.append(copy)
    standing: list[Loop] = []
    for kind in EXCLUSIVE:
        more_exact = list(standing)
        for loop in merged:
            if loop.kind != kind:
                continue
            covered = sum(
                max(0, min(loop.end, other.end) - max(loop.onset, other.onset) + 1)
                for other in more_exact
                if other.thread == loop.thread
            )
            if 2 * covered < loop.end - loop.onset + 1:
                standing.append(loop)
    others = [loop for loop in merged if loop.kind not in EXCLUSIVE]
    return sorted([*standing, *others], key=lambda loop: (loop.onset, loop.end))
