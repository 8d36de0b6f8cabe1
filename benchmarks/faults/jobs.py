"""The commands that are interrupted, their inputs, and what can be compared of their outputs."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import finish, in_fork, start

SAVE_INTERVAL = 2
DAMAGED = "damaged"

State = dict[str, str]
"""File -> what it contains, in a form that is equal for equal content."""


@dataclass
class Job:
    """A command and the output that it makes of the folder's inputs."""

    name: str
    folder: Path
    words: tuple[str, ...]
    """The words after `mmpt`; they write `out`."""
    older: tuple[str, ...]
    """The words that make an older output in the same place, which a run of `words` replaces."""
    read: Callable[[Path], State]
    changing: tuple[str, ...] = ()
    """Starts of the names of files whose content changes while the command runs."""
    uncompared: tuple[str, ...] = ()
    """Starts of the names of files that depend on when the command was interrupted."""

    before: State = field(default_factory=dict)
    """The state of the older output."""
    expected: State = field(default_factory=dict)
    """The state after an undisturbed run."""

    @property
    def out(self) -> Path:
        """The output: a folder or a file, in a folder of its own."""
        return self.folder / "out" / self.name / "made"

    @property
    def log(self) -> Path:
        """The output of the last process."""
        return self.folder / f"{self.name}.log"

    def state(self) -> State:
        """All files next to and below the output that are not hidden; DAMAGED for those that can't be read."""
        try:
            return in_fork(self.read, self.out.parent)
        except RuntimeError as error:
            return {"made": f"{DAMAGED}: {error}"}

    def run(self, words: Sequence[str] | None = None) -> int:
        """Run to the end, undisturbed."""
        return finish(start(words or self.words, self.log))

    def begin(self, *, older: bool) -> None:
        """Remove the output, or put the older one in its place."""
        shutil.rmtree(self.out.parent, ignore_errors=True)
        if older and self.before:
            shutil.copytree(self.folder / "older" / self.name, self.out.parent)
        else:
            self.out.parent.mkdir(parents=True)

    def prepare(self) -> None:
        """Make the older output, and the undisturbed one."""
        if self.older:
            self.begin(older=False)
            self.must_succeed(self.older)
            shutil.copytree(self.out.parent, self.folder / "older" / self.name)
            self.before = self.state()
        self.begin(older=False)
        self.must_succeed(self.words)
        self.expected = self.state()

    def must_succeed(self, words: Sequence[str]) -> None:
        """Run to the end; RuntimeError if it fails."""
        if status := self.run(words):
            raise RuntimeError(f"mmpt {' '.join(words)}: exit status {status}\n{self.log_text()[-2000:]}")

    def seconds(self, *, cold: bool) -> float:
        """How long an undisturbed run takes."""
        self.begin(older=False)
        begun = time.monotonic()
        finish(start(self.words, self.log, cold=cold))
        return time.monotonic() - begun

    def log_text(self) -> str:
        """What the last process has written to stdout and stderr."""
        return self.log.read_text(errors="replace")

    def half_written(self) -> list[str]:
        """Files that are neither those of an undisturbed run nor those that were there before."""
        found = self.state()
        return [f"{name} is {content}" for name, content in found.items() if not self.is_possible(name, content)]

    def is_possible(self, name: str, content: str) -> bool:
        """Whether a file may have this content at some time."""
        if name.startswith(self.changing):
            return not content.startswith(DAMAGED)
        return content in (self.expected.get(name), self.before.get(name))

    def lost(self) -> list[str]:
        """Files of the older output that are gone."""
        return sorted(self.before.keys() - self.state().keys())

    def differences(self) -> list[str]:
        """How the output differs from that of an undisturbed run."""
        found = self.state()
        names = [name for name in self.expected.keys() | found.keys() if not name.startswith(self.uncompared)]
        return sorted(
            f"{name} is {found.get(name)}, not {self.expected.get(name)}"
            for name in names
            if found.get(name) != self.expected.get(name)
        )

    def leftovers(self) -> list[str]:
        """Hidden files and folders, which a finished run should not leave."""
        return [str(path) for path in self.out.parent.rglob(".*")]


def files(folder: Path) -> State:
    """The digests of all files that are not hidden. The order of a safetensors file's metadata does not count."""
    return {
        str(path.relative_to(folder)): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def digest(path: Path) -> str:
    """A digest of a file's content."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        try:
            size = int.from_bytes(content[:8], "little")
            header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
        except ValueError:
            return DAMAGED
        content = header + content[8 + size :]
    return hashlib.sha256(content).hexdigest()[:16]


def training(folder: Path) -> State:
    """Of a run: the number of updates and the weights of its checkpoints, and its settings."""
    return {name: of_training(folder / name, content) for name, content in files(folder).items()}


def of_training(path: Path, content: str) -> str:
    """What can be compared of one file of a run."""
    from mmpt_plugin.fairseq_bridge.preemption import damage, num_updates

    if path.suffix == ".log":
        return "log"
    if path.suffix != ".pt":
        return content
    return DAMAGED if damage(path) else f"{num_updates(path)} updates, {weights(path)}"


def weights(path: Path) -> str:
    """A digest of the weights and of the optimizer's state of a checkpoint."""
    from mmpt_plugin.checkpoint import read_torch_file

    state = read_torch_file(path)
    result = hashlib.sha256()
    for part in (state["model"], state["last_optimizer_state"], state["extra_state"]["train_iterator"]):
        add(result, part)
    return result.hexdigest()[:16]


def add(result: Any, part: Any) -> None:
    """Add nested tensors and plain values to a digest."""
    if isinstance(part, Mapping):
        for key in sorted(part, key=str):
            result.update(str(key).encode())
            add(result, part[key])
    elif isinstance(part, list | tuple):
        for value in part:
            add(result, value)
    elif hasattr(part, "numpy"):
        result.update(part.numpy().tobytes())
    else:
        result.update(repr(part).encode())


def repeated_updates(log: Path) -> list[int]:
    """The updates that a log has more than once."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    records = [line[line.index('{"') :] for line in lines if '{"epoch"' in line and '"num_updates"' in line]
    numbers = [int(json.loads(record)["num_updates"]) for record in records if record.endswith("}")]
    return [number for i, number in enumerate(numbers) if number in numbers[:i]]


def collection(folder: Path) -> State:
    """The videos of a collection."""
    from mmpt_plugin.search import Collection

    url = str(folder / "made")
    if not Collection.exists(url):
        return {}
    store = Collection.open(url).store
    state = {}
    for video, about in store.videos().items():
        windows, result = store.rows(video), hashlib.sha256(repr(about).encode())
        for array in (windows.starts, windows.ends, windows.vectors):
            result.update(array.tobytes())
        state[video] = result.hexdigest()[:16]
    return state
