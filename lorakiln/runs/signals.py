"""Ctrl-C and SIGTERM: at once while nothing would be lost, after the step in hand while steps are made."""

import signal
from types import FrameType

from lorakiln.train.loop import Stop

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


class Interrupted(KeyboardInterrupt):
    """The run ends where it stands; its text is the signal's name."""


class Signals:
    """Catches both signals between `with` and its end. While `patient`, the first is only remembered (`asked`)."""

    def __init__(self) -> None:
        self.patient = False
        self._caught = ""

    def asked(self) -> Stop | None:
        """Why the run should end after this step, if it should."""
        return Stop(self._caught) if self._caught else None

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        before, self._caught = self._caught, self._caught or name
        if before or not self.patient:
            raise Interrupted(name)
