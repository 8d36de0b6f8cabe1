"""What a person sees of a training, in a terminal and without one; what the log file has; real trainings."""

import fcntl
import logging
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

pytest.importorskip("fairseq")

from mmpt_plugin.fairseq_bridge import console
from mmpt_plugin.fairseq_bridge.console import Pace, TrainingConsole, duration, learned, number, updates_left
from mmpt_plugin.report.curve import records
from tests.conftest import ROOT, run
from tests.fairseq_bridge.test_runs import updates, words

pytestmark = pytest.mark.fairseq

CHATTER = (
    "can_reuse_epoch_itr",
    "Preparing to save checkpoint",
    "Saved checkpoint",
    "begin training epoch",
    "{'_name'",
)
MMPT = Path(sys.executable).parent / "mmpt"
TWO = "distributed_training.distributed_world_size=2"


@pytest.mark.parametrize(
    ("epoch", "done", "limits", "expected"),
    [
        (1, 1, {"max_epoch": 3, "max_update": 0}, 11),
        (3, 4, {"max_epoch": 3, "max_update": 0}, 0),
        (2, 2, {"max_epoch": 3, "max_update": 10}, 4),
        (2, 2, {"max_epoch": 2, "max_update": 100}, 2),
        (2, 2, {"max_epoch": 0, "max_update": 10}, 4),
        (2, 2, {"max_epoch": 0, "max_update": 0}, None),
    ],
)
def test_the_updates_left_are_those_until_the_first_limit(epoch, done, limits, expected):
    """Epochs of 4 updates."""
    assert updates_left(epoch, done, 4, update=4 * (epoch - 1) + done, **limits) == expected


def test_a_log_on_a_full_disk_is_said_once_and_ends_nothing(capsys):
    shown = TrainingConsole(Path("/dev/full"), max_epoch=1, max_update=0)
    to_file = console.LogFile(Path("/dev/full"), shown)
    for _ in range(2):
        to_file.handle(logging.makeLogRecord({"msg": "loss 0.5"}))
    to_file.close()
    assert capsys.readouterr().err == (
        "/dev/full can't be written: no space left on device; the training continues without it\n"
    )


def test_the_pace_is_measured_from_the_first_update_on(monkeypatch):
    now = iter([100.0, 106.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    pace = Pace()
    assert pace.seconds(5) is None
    pace.count()
    assert pace.seconds(5) is None
    pace.count()
    pace.count()
    assert pace.seconds(5) == 15


def test_times_and_values_are_short():
    assert [duration(seconds) for seconds in (4.6, 65.0, 7384.0)] == ["0:05", "1:05", "2:03:04"]
    assert [number(value) for value in (0.25, 0.0, 13.5678, 1234.0, "x")] == ["0.25", "0", "13.57", "1234", "x"]


def test_the_loss_comes_first_and_bookkeeping_is_left_out():
    assert learned({"wps": 3, "v2t_recall@1": 0, "t2v_recall@1": 0, "loss": 1}) == [
        "loss",
        "t2v_recall@1",
        "v2t_recall@1",
    ]


def test_gpu_memory_is_shown_if_fairseq_logs_it(monkeypatch, tmp_path):
    class Properties:
        total_memory = 80 * 2**30

    monkeypatch.setattr(console.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(console.cuda, "get_device_properties", lambda _: Properties)
    shown = TrainingConsole(tmp_path / "log", max_epoch=2, max_update=0)
    stats = {"loss": 2.0, "num_updates": 3, "gb_free": 76.9, "pairs_per_second": 812.3}
    assert shown.cells_of(1, 3, 4, stats) == {
        "epoch": "1/2", "update": "3/8", "loss": "2", "pairs/s": "812", "GPU": "3.1/80 GB"
    }  # fmt: skip


@pytest.fixture
def handler(tmp_path, capsys):
    return console.ConsoleHandler(TrainingConsole(tmp_path / "log", 1, 0))


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("some.library", "the disk is nearly full", "the disk is nearly full\n"),
        ("py.warnings", "x.py:3: UserWarning: [odd]\n  call()\n", "x.py:3: UserWarning: [odd]\n"),
        ("py.warnings", "x.py:3: FutureWarning: renamed\n  call()\n", ""),
    ],
)
def test_warnings_stay_but_not_those_for_developers_of_libraries(handler, capsys, name, text, shown):
    handler.handle(logging.LogRecord(name, logging.WARNING, "", 0, text, (), None))
    assert capsys.readouterr().err == shown


def test_what_every_rank_says_is_shown_once(handler, capsys, monkeypatch):
    monkeypatch.setattr(console, "rank", lambda: 1)
    for name in (*console.ON_ALL_RANKS, "own"):
        handler.handle(logging.LogRecord(name, logging.WARNING, "", 0, name, (), None))
    assert capsys.readouterr().err == "own\n"


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], [TWO]], ids=["one-process", "two-processes"])
def test_without_a_terminal_each_logging_interval_is_a_line_and_the_log_file_has_everything(
    kitchen, tmp_path, overrides
):
    """Two epochs of 4 updates, of 2 with two processes. The console has neither fairseq's log nor escape codes."""
    done = run("mmpt", *words(kitchen, tmp_path, "common.log_interval=2", *overrides))
    last = 4 if overrides else 8
    assert not any(word in done.stdout + done.stderr for word in (*CHATTER, "\x1b"))
    assert f"log: {tmp_path}/train.log" in done.stderr
    lines = re.findall(
        r"^epoch (\d)/2  update (\d)/(\d)  loss [\d.]+  t2v_recall@1 [\d.]+  v2t_recall@1 ", done.stderr, re.M
    )
    assert lines == [(str(1 + (i > last // 2)), str(i), str(last)) for i in range(2, last + 1, 2)]
    assert len(re.findall(r"^epoch \d  update \d  train_loss [\d.]+  train_t2v_recall@1 ", done.stderr, re.M)) == 2
    log = (tmp_path / "train.log").read_text()
    assert all(word in log for word in CHATTER)
    logged = [record for record in records(tmp_path / "train.log") if "num_updates" in record]
    assert [int(record["num_updates"]) for record in logged] == list(range(2, last + 1, 2))
    assert all(float(record["pairs_per_second"]) >= 0 for record in logged)
    assert f"checkpoints  {tmp_path}: checkpoint_last.pt\n" in done.stdout
    assert f"log          {tmp_path}/train.log\nsettings     {tmp_path}/project.yaml\nnext:\n" in done.stdout
    assert (
        f"  mmpt evaluate videoclip/zeroshot task=NAME checkpoint={tmp_path}/checkpoint_last.pt --json" in done.stdout
    )
    assert f"  mmpt report {tmp_path} --videos data/toy_kitchen/videos\n" in done.stdout


@pytest.mark.slow
def test_the_log_is_in_the_runs_folder_if_the_project_names_no_file(kitchen, tmp_path):
    run("mmpt", *words(kitchen, tmp_path, "common.log_file=null", epochs=1))
    assert [int(r["num_updates"]) for r in records(tmp_path / "train.log") if "num_updates" in r] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_log_format_on_the_command_line_brings_fairseqs_own_log_back(kitchen, tmp_path):
    done = run("mmpt", *words(kitchen, tmp_path, "common.log_format=json", epochs=1))
    assert all(word in done.stderr for word in CHATTER)
    assert [int(r["num_updates"]) for r in records(tmp_path / "train.log") if "num_updates" in r] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_warning_is_on_the_console_and_in_the_log(kitchen, tmp_path):
    """`task.benchmark` without validation."""
    own = benchmark(kitchen)
    done = run("mmpt", *words(kitchen, tmp_path, *own, epochs=1))
    warning = "task.benchmark is not evaluated, because dataset.disable_validation is true"
    assert f"{warning}\n" in done.stderr
    assert f"WARNING | mmpt_plugin.fairseq_bridge.task | {warning}\n" in (tmp_path / "train.log").read_text()


class Terminal:
    """A command in a pseudo terminal of 100 columns."""

    def __init__(self, *command: object) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(str(command[0]), [*map(str, command)], environment)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.output = ""

    def read(self, seconds: float = 0.1) -> bool:
        """Read what is there; False at the end."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.terminal, 2**16)
        except OSError:  # so Linux says that the other end is closed
            return False
        self.output += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, pattern: str) -> None:
        end = time.monotonic() + 120
        while not re.search(pattern, self.output):
            if not self.read() or time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                pytest.fail(f"no {pattern!r} in {self.output[-3000:]}")

    def press_ctrl_c(self) -> None:
        os.write(self.terminal, b"\x03")

    def status(self) -> int:
        end = time.monotonic() + 120
        while self.read() and time.monotonic() < end:
            pass
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


TABLE = r"2mepoch *\S*  \S*update.*loss.*t2v_recall@1.*v2t_recall@1.*pairs/s"


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], [TWO]], ids=["one-process", "two-processes"])
def test_a_terminal_shows_a_live_table_and_ctrl_c_saves_and_says_how_to_resume(kitchen, tmp_path, overrides):
    command = words(kitchen, tmp_path, *overrides, epochs=5000)
    terminal = Terminal(MMPT, *command)
    terminal.wait_for(TABLE)
    terminal.wait_for(r"\d/5000 +\d+/\d+000 .*\d:\d\d")
    terminal.press_ctrl_c()
    terminal.wait_for("SIGINT: saving after this update")
    assert terminal.status() == 130
    output = terminal.output.replace("\r\n", "\n")
    assert not any(word in output for word in (*CHATTER, "Traceback"))
    assert output.count("SIGINT: saving after this update") == 1
    assert (
        f"mmpt train: stopped and saved in {tmp_path}; run the same command to resume:\n  mmpt train videoclip"
        in output
    )
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")  # the cursor is shown again
    resumed = output[output.rindex("  mmpt train ") :].split()
    assert resumed[1:] == [str(word) for word in command]
    if overrides:  # that two processes resume is tested with SIGTERM
        return
    reached = updates(tmp_path)
    again = Terminal(MMPT, *resumed[1:])
    again.wait_for(TABLE)
    again.wait_for(r"\d/5000 +\d+/\d+000 .*\d:\d\d")
    again.press_ctrl_c()
    assert again.status() == 130
    assert updates(tmp_path) > reached


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_shows_the_cursor(tmp_path):
    """In a training that makes no update."""
    code = f"""
import time
from types import SimpleNamespace
from mmpt_plugin.fairseq_bridge.console import reporting
from mmpt_plugin.fairseq_bridge.preemption import stops_on_signals
config = SimpleNamespace(
    common=SimpleNamespace(log_file="{tmp_path}/log", log_format="json"),
    optimization=SimpleNamespace(max_epoch=1, max_update=0),
)
with stops_on_signals(), reporting(config) as console:
    console.start()
    time.sleep(60)
"""
    (tmp_path / "wait.py").write_text(code)
    terminal = Terminal(sys.executable, tmp_path / "wait.py")
    terminal.wait_for("loading model and data")
    terminal.press_ctrl_c()
    terminal.wait_for("SIGINT: saving")
    time.sleep(1.2)
    terminal.press_ctrl_c()
    assert terminal.status() == 130
    assert "ended immediately" in terminal.output
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")


def benchmark(kitchen) -> list[str]:
    """Overrides: retrieval of the clips of the kitchen's held-out videos."""
    files = {
        "annotations": kitchen.root / "test_clips.jsonl", "features": kitchen.features,
        "videos": kitchen.root / "videos", "tokenizer": kitchen.root / "tokenizer",
    }  # fmt: skip
    return [
        "task.benchmark=toy_kitchen_clips",
        *(f"task.benchmark.dataset.{key}={path}" for key, path in files.items()),
    ]
