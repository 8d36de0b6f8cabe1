"""What a person sees of a training: a live table in a terminal, otherwise one line per logging interval.

fairseq logs everything to the console. Here its whole log goes to a file. The console shows warnings, and the values
that fairseq passes to its progress bars, under the names that they have in the log.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq.logging import metrics, progress_bar
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from torch import cuda

from mmpt_plugin.distributed import rank
from mmpt_plugin.files import WriteFailed, write_failures
from mmpt_plugin.terminal import printable, say

REFRESH_SECONDS = 0.25
FORMAT, DATE = "%(asctime)s | %(levelname)s | %(name)s | %(message)s", "%Y-%m-%d %H:%M:%S"

# Values of fairseq, and of this project, that describe the computation instead of what is learned.
BOOKKEEPING = {
    *("num_updates", "wps", "ups", "wpb", "bsz", "lr", "gnorm", "clip", "train_wall", "wall", "gb_free", "loss_scale"),
    *("pairs_per_second", "coverage", "videos_repeated"),
}

# All ranks log the same from these; the console shows it once.
ON_ALL_RANKS = ("py.warnings", "mmpt_plugin.fairseq_bridge.preemption")
FOR_DEVELOPERS = ("DeprecationWarning", "FutureWarning")  # of libraries: in the log file only

Stats = Mapping[str, Any]
Cells = dict[str, str]


@contextmanager
def reporting(config: Any) -> Iterator["TrainingConsole"]:
    """Context manager in which fairseq's log goes to `common.log_file`, and the console shows the progress of rank 0.

    Afterwards, the earlier log handlers are in place again.
    """
    path = Path(config.common.log_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    config.common.log_file = None  # fairseq would write its part of the log a second time
    if config.common.log_format in (None, "tqdm"):
        config.common.log_format = "simple"
    console = TrainingConsole(path, config.optimization.max_epoch or 0, config.optimization.max_update or 0)
    to_file, to_console = LogFile(path, console), ConsoleHandler(console)
    to_file.setFormatter(LogFormatter(FORMAT, DATE))
    root, original = logging.getLogger(), progress_bar.progress_bar
    tensorboard = progress_bar.TensorboardProgressBarWrapper
    log_to_tensorboard = tensorboard._log_to_tensorboard
    before, root.handlers = root.handlers, [to_file, to_console]
    logging.captureWarnings(True)
    progress_bar.progress_bar = console.bar(original)
    tensorboard._log_to_tensorboard = console.tensorboard(log_to_tensorboard)
    try:
        yield console
    finally:
        progress_bar.progress_bar, tensorboard._log_to_tensorboard = original, log_to_tensorboard
        logging.captureWarnings(False)
        root.handlers = before
        to_console.close()
        to_file.close()


class LogFile(logging.FileHandler):
    """The log of a run. If it can't be written, the console says so once, and the training continues without it."""

    def __init__(self, path: Path, console: "TrainingConsole") -> None:
        with write_failures(path):
            super().__init__(path, encoding="utf-8")
        self.path, self.console, self.failed = path, console, False

    def handleError(self, record: logging.LogRecord | None) -> None:
        """Show the first error of writing."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)  # type: ignore[arg-type]
        elif not self.failed:
            self.failed = True
            self.console.show_failure(self.path, error)

    def close(self) -> None:
        """Write what is left."""
        try:
            super().close()
        except OSError:
            self.handleError(None)


class LogFormatter(logging.Formatter):
    """fairseq's log format; lines of JSON have no prefix."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        message = record.getMessage()
        return message if message.startswith('{"') else super().format(record)


class ConsoleHandler(logging.Handler):
    """Shows warnings and errors on the console, above the live table."""

    def __init__(self, console: "TrainingConsole") -> None:
        super().__init__(logging.WARNING)
        self.console, self.pid = console, os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record. A loader's worker, which is a copy of this process, has no part in the live table."""
        try:
            text = self.format(record)
            if rank() != 0 and record.name in ON_ALL_RANKS:
                return
            if record.name == "py.warnings":
                text = text.splitlines()[0]  # the rest is the line of code
                if any(kind in text for kind in FOR_DEVELOPERS):
                    return
            if os.getpid() == self.pid:
                self.console.print(text)
            else:
                say(text, file=sys.stderr)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """End the live table. `logging.shutdown` calls this too, before a second signal ends the process."""
        self.console.stop()
        super().close()


class TrainingConsole:
    """Shows the progress of a training on stderr."""

    def __init__(self, log_file: Path, max_epoch: int, max_update: int) -> None:
        self.log_file, self.max_epoch, self.max_update = log_file, max_epoch, max_update
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live: Live | None = None
        self.phase = ""
        """What happens now, unless batches are trained on."""
        self.cells: Cells = {}
        self.pace = Pace()
        self.refreshed = 0.0

    def start(self) -> None:
        """Name the log file, and start the live table if stderr is a terminal; on rank 0 only."""
        if rank() != 0:
            return
        self.print(f"log: {self.log_file}")
        if sys.stderr.isatty() and not self.console.is_dumb_terminal:
            # Without a thread that refreshes: the loader forks workers, which would inherit its locks.
            self.live = Live(
                console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self.live.start()
            self.show_phase("loading model and data")

    def stop(self) -> None:
        """Remove the live table, and show the cursor again."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def print(self, text: str) -> None:
        """Print a line, above the live table if there is one."""
        self.console.print(Text(printable(text)), soft_wrap=True)

    def show_failure(self, path: object, error: OSError) -> None:
        """Print that a file, which the training does not need, can't be written."""
        self.print(f"{WriteFailed(error.errno, error.strerror, path)}; the training continues without it")

    def tensorboard(self, original: Callable[..., None]) -> Callable[..., None]:
        """fairseq's method that writes to TensorBoard; after an error of writing it does nothing."""
        failed = False

        def log_unless_failed(bar: Any, stats: Stats, tag: str | None = None, step: int | None = None) -> None:
            nonlocal failed
            if failed:
                return
            try:
                original(bar, stats, tag, step)
            except OSError as error:
                failed = True
                self.show_failure(bar.tensorboard_logdir, error)

        return log_unless_failed

    def bar(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """fairseq's `progress_bar`, with bars that are also shown here; unchanged on other ranks than 0."""

        def progress_bar_shown(iterator: Any, *arguments: Any, **options: Any) -> Any:
            bar = original(iterator, *arguments, **options)
            return bar if rank() != 0 else ShownBar(bar, self, iterator, options["epoch"], options.get("prefix"))

        return progress_bar_shown

    def show_phase(self, phase: str) -> None:
        """Show what happens now, in the live table only."""
        self.phase = phase
        self.refresh(always=True)

    def refresh(self, *, always: bool = False) -> None:
        """Draw the live table, at most every REFRESH_SECONDS unless `always` is set."""
        now = time.monotonic()
        if self.live is not None and (always or now - self.refreshed > REFRESH_SECONDS):
            self.refreshed = now
            phase = [Text(self.phase, style="dim")] if self.phase else []
            self.live.update(Group(table(self.cells), *phase), refresh=True)

    def show_step(self, epoch: int, done: int, size: int) -> None:
        """Show the state after an update, with the averages since the last logging interval."""
        self.pace.count()
        if self.live is None:
            return
        stats = metrics.get_smoothed_values("train_inner")
        if stats.get("num_updates") is not None:  # else fairseq has just reset its averages, after a logging interval
            self.cells |= self.cells_of(epoch, done, size, stats)
        self.refresh()

    def show_interval(self, epoch: int, done: int, size: int, stats: Stats) -> None:
        """Show the averages of a logging interval; without a terminal, in a line."""
        self.cells |= self.cells_of(epoch, done, size, stats)
        if self.live is None:
            self.print("  ".join(f"{name} {value}" for name, value in self.cells.items()))
        self.refresh()

    def show_averages(self, epoch: int, tag: str, stats: Stats) -> None:
        """Print the averages of an epoch, or the values of a validation, in a line that stays."""
        names = learned(stats) if tag == "train" else [name for name in stats if is_learned(name)]
        cells = {"epoch": str(epoch), "update": str(stats.get("num_updates", 0))}
        cells |= {f"{tag}_{name}": number(stats[name]) for name in names}
        self.print("  ".join(f"{name} {value}" for name, value in cells.items()))

    def cells_of(self, epoch: int, done: int, size: int, stats: Stats) -> Cells:
        """Epoch, update, loss, in-batch recall, pairs per second, time left and GPU memory, as far as known."""
        update = int(stats["num_updates"])
        left = updates_left(epoch, done, size, update=update, max_epoch=self.max_epoch, max_update=self.max_update)
        cells = {
            "epoch": f"{epoch}/{self.max_epoch}" if self.max_epoch else str(epoch),
            "update": str(update) if left is None else f"{update}/{update + left}",
        }
        cells |= {name: number(stats[name]) for name in learned(stats) if stats[name] is not None}
        if stats.get("pairs_per_second"):
            cells["pairs/s"] = f"{stats['pairs_per_second']:.0f}"
        if left is not None and (seconds := self.pace.seconds(left)) is not None:
            cells["left"] = duration(seconds)
        if stats.get("gb_free") is not None:
            total = cuda.get_device_properties(cuda.current_device()).total_memory / 2**30
            cells["GPU"] = f"{total - float(stats['gb_free']):.1f}/{total:.0f} GB"
        return cells


class ShownBar(progress_bar.BaseProgressBar):  # type: ignore[misc]
    """One of fairseq's progress bars, which writes to the log and to TensorBoard, shown on the console as well."""

    def __init__(self, bar: Any, console: TrainingConsole, iterator: Any, epoch: int, prefix: str | None) -> None:
        super().__init__(iterator, epoch, prefix)
        self.bar, self.console, self.training = bar, console, prefix is None
        self.done, self.size = self.n, len(iterator)

    def __iter__(self) -> Iterator[Any]:
        self.console.show_phase("" if self.training else "validating")
        for batch in self.bar:
            self.done += 1
            yield batch
            if self.training:
                self.console.show_step(self.epoch, self.done, self.size)

    def log(self, stats: Stats, tag: str | None = None, step: int | None = None) -> None:
        """Log and show the averages of a logging interval."""
        self.bar.log(stats, tag=tag, step=step)
        self.console.show_interval(self.epoch, self.done, self.size, stats)

    def print(self, stats: Stats, tag: str | None = None, step: int | None = None) -> None:
        """Log and show the averages of an epoch, or the values of a validation."""
        self.bar.print(stats, tag=tag, step=step)
        self.console.show_averages(self.epoch, tag or "train", stats)
        self.console.show_phase("preparing the next epoch" if self.training else "")

    def update_config(self, config: Any) -> None:
        """Pass the configuration to services such as Weights & Biases."""
        self.bar.update_config(config)


class Pace:
    """The time that updates take, including what happens between them, such as validation."""

    def __init__(self) -> None:
        self.started: float | None = None
        self.updates = 0

    def count(self) -> None:
        """Count an update; the time starts with the first one, which is slow."""
        if self.started is None:
            self.started = time.monotonic()
        else:
            self.updates += 1

    def seconds(self, updates: int) -> float | None:
        """The time of so many updates at the average pace so far; None before there is one."""
        if self.started is None or not self.updates:
            return None
        return updates * (time.monotonic() - self.started) / self.updates


def keep_metric_names() -> None:
    """Let TensorBoard show `t2v_recall@1` under that name: tensorboardX, if fairseq uses it, writes `t2v_recall_1`."""
    if (summary := sys.modules.get("tensorboardX.summary")) is not None:
        summary._clean_tag = str  # type: ignore[attr-defined]


def updates_left(epoch: int, done: int, size: int, *, update: int, max_epoch: int, max_update: int) -> int | None:
    """The number of updates until the end of training, from `done` of `size` in this epoch; None without an end."""
    limits = []
    if max_epoch:
        limits.append((max_epoch - epoch) * size + size - done)
    if max_update:
        limits.append(max_update - update)
    return max(min(limits), 0) if limits else None


def learned(stats: Stats) -> list[str]:
    """The names of the loss and of the metrics of the criterion."""
    return sorted(filter(is_learned, stats), key=lambda name: (name != "loss", name))


def is_learned(name: str) -> bool:
    """Whether a value shows what is learned: not the speed, and not chance, which is for the curves."""
    return name not in BOOKKEEPING and not name.startswith("chance_")


def table(cells: Cells) -> Table:
    """The names above the values."""
    made = Table.grid(padding=(0, 2))
    made.add_row(*(Text(name, style="dim") for name in cells))
    made.add_row(*map(Text, cells.values()))
    return made


def number(value: Any) -> str:
    """A value with up to four digits after the point."""
    value = progress_bar.format_stat(value)
    try:
        return f"{float(value):.4g}" if abs(float(value)) >= 1 else f"{float(value):.4f}".rstrip("0").rstrip(".")
    except (TypeError, ValueError):
        return str(value)


def duration(seconds: float) -> str:
    """`1:05` or `2:03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
