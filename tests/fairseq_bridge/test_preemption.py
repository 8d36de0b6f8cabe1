"""A request to stop takes effect at a step boundary; without training."""

import os
import signal
import time

import pytest

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

import fairseq_cli.train  # noqa: E402

from mmpt_plugin.fairseq_bridge import preemption  # noqa: E402
from mmpt_plugin.fairseq_bridge.preemption import stops_at_step_boundaries, stops_on_signals  # noqa: E402


@pytest.fixture
def exits(monkeypatch):
    """The codes that the process would have ended with."""
    codes = []
    monkeypatch.setattr(preemption.os, "_exit", codes.append)
    monkeypatch.setattr(preemption.logging, "shutdown", lambda: None)
    yield codes
    preemption.reset()


def send(number, *, until):
    os.kill(os.getpid(), number)
    end = time.monotonic() + 10
    while not until() and time.monotonic() < end:
        time.sleep(0.01)
    assert until()


def test_a_signal_is_a_request_and_one_right_after_it_is_ignored(exits, caplog):
    """The same Ctrl-C may reach a process more than once."""
    preemption.request()
    preemption.agree([{preemption.LOG_KEY: 1}])
    with stops_on_signals():
        assert not preemption.is_requested()  # of an earlier run
        assert not preemption.was_stopped()
        send(signal.SIGINT, until=preemption.is_requested)
        assert "SIGINT: saving after this update" in caplog.text
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
    assert exits == []
    assert not preemption.was_stopped()


def test_a_later_signal_ends_at_once_unless_it_is_slurms(exits, monkeypatch):
    with stops_on_signals():
        send(signal.SIGTERM, until=preemption.is_requested)
        monkeypatch.setattr(preemption, "SECOND_SIGNAL_AFTER", 0.0)
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.2)
        assert exits == []
        send(signal.SIGTERM, until=lambda: exits)
    assert exits == [128 + signal.SIGTERM]


@pytest.mark.parametrize(
    ("agreed", "end_of_epoch", "expected", "calls"),
    [
        (False, False, ([0.5], False), ["validate"]),
        (True, False, ([None], True), ["save"]),
        (True, True, ([0.5], True), ["save", "validate"]),
    ],
)
def test_training_ends_once_all_ranks_agree(exits, monkeypatch, agreed, end_of_epoch, expected, calls):
    """A request of this rank alone changes nothing. Saving comes first: there may be no time for validation."""
    made = []
    monkeypatch.setattr(fairseq_cli.train, "validate_and_save", lambda *_: made.append("validate") or ([0.5], False))
    monkeypatch.setattr(preemption.checkpoint_utils, "save_checkpoint", lambda *_: made.append("save"))
    original = fairseq_cli.train.validate_and_save
    preemption.request()
    preemption.agree([{}, {preemption.LOG_KEY: int(agreed)}])

    class Config:
        checkpoint = None

    with stops_at_step_boundaries():
        assert fairseq_cli.train.validate_and_save(Config, None, None, None, [], end_of_epoch) == expected
    assert made == calls
    assert fairseq_cli.train.validate_and_save is original
