"""The event log: whole lines at once, a full disk said once, each step once after a resume."""

import json
from pathlib import Path

import pytest

from lorakiln.base.errors import UserError
from lorakiln.train.events import EventLog, read_events, rewind


def test_a_full_disk_is_said_when_writing_and_not_again_when_closing():
    log = EventLog(Path("/dev/full"))
    with pytest.raises(UserError, match="/dev/full: the disk is full"):
        log.write("step", 1, loss=0.5)
    log.close()


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (1, 2), (9, 3)])
def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path, step, kept):
    """A run from its start draws the first samples again, too."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    happened = [("sample", 0), ("step", 1), ("step", 2), ("end", 2)]
    for event, number in happened:
        log.write(event, number)
    log.close()
    path.write_text(path.read_text() + json.dumps({"event": "step"})[:-4])  # cut short by a kill
    rewind(path, step)
    assert [(one["event"], one["step"]) for one in read_events(path)] == happened[:kept]
