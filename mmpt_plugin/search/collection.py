"""Collections: video files that can be searched by text, by example, and by label."""

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from mmpt_plugin.files import absolute, file_sha256, files_below
from mmpt_plugin.models import PretrainedEmbedder, load_model, pretrained
from mmpt_plugin.protocols import Store
from mmpt_plugin.search.indexing import indexing
from mmpt_plugin.search.moments import Moment, overlap, window_at, without_overlaps
from mmpt_plugin.search.stores.store import StoredVideo, Where, Windows, store_of
from mmpt_plugin.search.windows import WindowWork, window_work, work_of
from mmpt_plugin.video.store import left_out_lines, why_not
from mmpt_plugin.video.workers import Failure, check_num_workers, outcomes

logger = logging.getLogger(__name__)

VERSION = 1  # of the settings and columns; a later version can read earlier ones
COMMIT_ROWS = 4096  # a commit takes about 70 ms in LanceDB, however few rows it has
COMMIT_SECONDS = 10.0  # how much work a killed run loses at most, apart from the videos being decoded
SAMPLED_VIDEOS = 64  # whose windows give the usual scores of a sentence
SAMPLED_SECONDS = 60.0  # how long that sample is used


@dataclass
class IndexReport:
    """What `Collection.index` did; `str()` formats it for the terminal."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Videos whose file has another size or time than when they were indexed."""
    moved: dict[str, str] = field(default_factory=dict)
    """New id -> old id of files that are found elsewhere with the same content."""
    unchanged: int = 0
    missing: list[str] = field(default_factory=list)
    """Videos whose file is no longer there; they stay in the collection unless they are removed."""
    removed: list[str] = field(default_factory=list)
    """Missing videos that were removed: on request, or because another file has the same content."""
    failed: dict[str, str] = field(default_factory=dict)
    """Video file -> why it can't be indexed; the next run tries again."""
    left_out: dict[str, str] = field(default_factory=dict)
    """File of a folder -> why it is not a video."""

    def __str__(self) -> str:
        counts = {
            "added": self.added, "changed": self.changed, "moved": self.moved, "removed": self.removed,
            "missing": self.missing, "failed": self.failed,
        }  # fmt: skip
        some = [f"{len(videos)} {name}" for name, videos in counts.items() if videos]
        lines = [f"{', '.join([*some, f'{self.unchanged} unchanged'])}"]
        lines += [f"missing: {video}" for video in self.missing]
        lines += [f"failed: {reason}" for reason in self.failed.values()]
        return "\n".join([*lines, *left_out_lines(self.left_out)])


@dataclass(frozen=True)
class Found:
    """A video file on disk."""

    path: Path
    root: str
    size: int
    modified: int


class Collection:
    """Video files, cut into windows whose vectors are in a store, and the model that made the vectors.

    Example::

        collection = Collection.create("my.collection", model="videoclip", window=6, hop=2)
        collection.index(["~/Videos"], num_workers=8)
        for moment in collection.search("slice the onion", k=10):
            print(moment.path, moment.start, moment.end, moment.score)
    """

    def __init__(self, store: Store, url: str, settings: Mapping[str, Any]) -> None:
        self.store = store
        self.url = url
        self.settings = settings
        """version, model, options, window, hop, and digests of the weights and of the encoder."""
        self._sample: tuple[float, np.ndarray] | None = None
        self._sampling = Lock()

    @classmethod
    def create(
        cls, url: str | Path, *, model: str | Path, window: int = 6, hop: int = 2, **options: Any
    ) -> "Collection":
        """Create an empty collection; ValueError if there is one at this URL.

        `url` is a folder to create, an s3:// URL or milvus+http://host:19530/name. `model` and `options` (tokenizer,
        encoder, ...) are the arguments of `load_model`. A video is cut into windows of `window` seconds, one every
        `hop` seconds.
        """
        if not 0 < hop <= window:
            raise ValueError(f"hop must be 1 to {window}, the seconds of a window, got {hop}")
        store = store_of(str(url))
        if store.exists():
            raise ValueError(f"{url} is a collection already: index into it without --window, --hop")
        path, options = absolute_or_name(model), with_absolute_paths(options)
        loaded = load_model(path, **options)
        work = work_of(loaded, window, hop)
        settings = {"version": VERSION, "model": path, "options": options, "window": window, "hop": hop}
        settings |= {"weights": weights_of(loaded), "encoder": encoder_of(loaded)}
        store.create(settings, width=loaded.config.hidden_size)
        collection = cls(store, str(url), settings)
        collection.model, collection._work = loaded, work
        return collection

    @staticmethod
    def exists(url: str | Path) -> bool:
        """Whether there is a collection at the URL."""
        return store_of(str(url)).exists()

    @classmethod
    def open(cls, url: str | Path) -> "Collection":
        """Open a collection; ValueError if there is none. The model is loaded when it is needed."""
        store = store_of(str(url))
        settings = store.settings()
        if settings["version"] > VERSION:
            raise ValueError(f"{url} was written by a newer version of mmpt_plugin, update it to read the collection")
        return cls(store, str(url), settings)

    @cached_property
    def model(self) -> PretrainedEmbedder:
        """The collection's model; ValueError if its file has other weights than when the collection was created."""
        loaded = load_model(self.settings["model"], **self.settings["options"])
        if weights_of(loaded) != self.settings["weights"]:
            raise ValueError(
                f"{self.settings['model']} has other weights than when {self.url} was created: "
                "create another collection"
            )
        return loaded

    def check_model(self, model: str | Path, **options: Any) -> None:
        """ValueError unless these are the weights that the collection was created with."""
        loaded = load_model(model, **options)
        same = {"weights": weights_of(loaded), "encoder": encoder_of(loaded)}
        if different := [name for name, own in same.items() if own != self.settings[name]]:
            raise ValueError(
                f"{self.url} was created with {self.settings['model']}, and {model} has "
                f"{' and '.join(f'another {name}' if name == 'encoder' else f'other {name}' for name in different)}: "
                "create another collection"
            )

    def index(self, paths: Sequence[str | Path], *, num_workers: int = 1, remove_missing: bool = False) -> IndexReport:
        """Index video files and folders, which are searched recursively; videos of other folders stay as they are.

        A file that is indexed already is skipped, unless its size or time has changed. A renamed or moved file is
        recognized by its content. A file that cannot be read is reported, and tried again next time. Each commit makes
        whole videos searchable; an interrupted run continues where it was.
        """
        check_num_workers(num_workers)
        report = IndexReport()
        known = self.store.videos()
        given = [absolute(Path(path).expanduser()) for path in paths]
        found = self._find(given, known, report)
        gone = {
            video
            for video, about in known.items()
            if video not in found and is_below(about.path(video), given) and not about.path(video).is_file()
        }
        if remove_missing and gone and not found:
            raise ValueError(
                f"no videos in {', '.join(map(str, given))}: nothing is removed, in case a disk is not mounted"
            )
        lost: dict[int, list[str]] = {}
        for video, about in known.items():
            if not about.path(video).is_file():
                lost.setdefault(about.size, []).append(video)
        waiting = []
        for video, file in found.items():
            before = known.get(video)
            if before is not None and (before.size, before.modified) == (file.size, file.modified):
                report.unchanged += 1
            elif before is None and (old := moved_from(file, lost.get(file.size, []), known)):
                report.moved[video] = old
            else:
                waiting.append((video, file.path))
        self._move(report.moved, found, known)
        with indexing(self.url):
            self._compute(waiting, found, known, num_workers, report)
        missing = gone - set(report.moved.values())
        present = {known[video].content for video in found.keys() & known.keys()}
        report.removed = sorted(video for video in missing if remove_missing or known[video].content in present)
        report.missing = sorted(missing - set(report.removed))
        self.store.remove(report.removed)
        if waiting or report.moved or report.removed:
            self.store.compact()
        return report

    def search(
        self,
        sentence: str,
        k: int = 10,
        *,
        folder: str | None = None,
        min_duration: float | None = None,
        max_duration: float | None = None,
    ) -> list[Moment]:
        """The `k` moments that fit a sentence best, best first, by the model's own similarity.

        `folder` is below an indexed folder, or a path; the durations are of whole videos, in seconds. No two moments
        of a video overlap.
        """
        self._check_sentence(sentence)
        vector = self.model.embed_text(sentence)[0].numpy()
        return self._moments(vector, k, self._where(folder, min_duration, max_duration))

    def similar(
        self,
        moment: Moment,
        k: int = 10,
        *,
        folder: str | None = None,
        min_duration: float | None = None,
        max_duration: float | None = None,
    ) -> list[Moment]:
        """The `k` moments most similar to a moment, without those that overlap it."""
        vector = self._vector(moment.video, moment.start)
        return self._moments(vector, k, self._where(folder, min_duration, max_duration), without=moment)

    def at(self, path: str | Path, second: float) -> Moment:
        """The moment of an indexed file that is nearest to a second of it."""
        file = absolute(Path(path).expanduser())
        for video, about in self.store.videos().items():
            if about.path(video) == file or video == str(path):
                windows = self.store.rows(video)
                number = window_at(windows.starts.tolist(), windows.ends.tolist(), second)
                if number is None:
                    raise ValueError(f"{path} has no second {second:g}: it is {about.duration:g} s long")
                start, end = float(windows.starts[number]), float(windows.ends[number])
                return Moment(video, about.path(video), start, end, 0.0, 0.0)
        raise ValueError(f"{path} is not in {self.url}: add it with mmpt index")

    def classify(self, moment: Moment, prompts: Sequence[str] | Mapping[str, str | Sequence[str]]) -> dict[str, float]:
        """Label -> score, highest first; see `Embedder.classify` for the prompts."""
        vector = torch.tensor(self._vector(moment.video, moment.start))[None]
        return self.model.classify(vector, prompts)[0]

    def videos(self) -> dict[str, StoredVideo]:
        """All videos by id."""
        return self.store.videos()

    def _find(self, paths: Sequence[Path], known: Mapping[str, StoredVideo], report: IndexReport) -> dict[str, Found]:
        """The video files of `paths` by id; files that are not videos go to the report."""
        roots = {video.partition("/")[0]: about.root for video, about in known.items()}
        found: dict[str, Found] = {}
        for path in paths:
            if not path.exists():
                raise ValueError(f"no video or folder at {path}")
            folder = path if path.is_dir() else path.parent
            for file in files_below(path) if path.is_dir() else [path]:
                if path.is_dir() and (reason := outside(file, folder) or why_not(file)):
                    report.left_out[str(file)] = reason
                    continue
                if not is_unicode(file):
                    shown = os.fsencode(file).decode(errors="replace")
                    report.failed[shown] = f"{shown}: rename it, its name is not UTF-8"
                    continue
                name = root_name(file, folder, roots)
                try:
                    about = file.stat()
                except OSError as error:
                    report.failed[str(file)] = f"{file}: {error.strerror}"
                    continue
                below = file.relative_to(roots[name]).as_posix()
                found[f"{name}/{below}"] = Found(file, roots[name], about.st_size, about.st_mtime_ns)
        if not found and not known:
            where = ", ".join(map(str, paths[:3]))
            why = f"; left out: {next(iter(report.left_out.values()))}" if report.left_out else ""
            raise ValueError(f"no videos in {where}{why}")
        return found

    def _move(self, moved: Mapping[str, str], found: Mapping[str, Found], known: Mapping[str, StoredVideo]) -> None:
        """Store the rows of moved files under new ids; if that is killed halfway, the next run removes the old."""
        for video, old in moved.items():
            about = replace(known[old], root=found[video].root, modified=found[video].modified)
            self.store.replace({video: (about, self.store.rows(old))})
        self.store.remove(list(moved.values()))

    def _compute(
        self,
        waiting: list[tuple[str, Path]],
        found: Mapping[str, Found],
        known: Mapping[str, StoredVideo],
        num_workers: int,
        report: IndexReport,
    ) -> None:
        """Compute the windows of files and store them, several videos in each commit."""
        if not waiting:
            return
        window, hop = self.settings["window"], self.settings["hop"]
        build = partial(window_work, self.settings["model"], self.settings["options"], window, hop)
        id_of = {path: video for video, path in waiting}
        pending: dict[str, tuple[StoredVideo, Windows]] = {}
        last = time.monotonic()

        def commit() -> None:
            if pending:
                self.store.replace(pending)
                for video in pending:
                    (report.changed if video in known else report.added).append(video)
                pending.clear()

        try:
            for path, outcome in outcomes(waiting, self._work, build, num_workers, label="indexing"):
                if isinstance(outcome, Failure):
                    report.failed[str(path)] = outcome.reason
                    continue
                about, windows = outcome
                pending[id_of[path]] = replace(about, root=found[id_of[path]].root), windows
                rows = sum(len(windows.starts) for _, windows in pending.values())
                if rows >= COMMIT_ROWS or time.monotonic() - last > COMMIT_SECONDS:
                    commit()
                    last = time.monotonic()
        finally:
            commit()

    @cached_property
    def _work(self) -> WindowWork:
        """The work with the model that is loaded in this process; ValueError if its encoder has changed."""
        if encoder_of(self.model) != self.settings["encoder"]:
            raise ValueError(f"the encoder of {self.url} has changed since it was created: create another collection")
        return work_of(self.model, self.settings["window"], self.settings["hop"])

    def _where(self, folder: str | None, min_duration: float | None, max_duration: float | None) -> Where:
        """The filter of a search; ValueError for a folder without videos."""
        if folder is None:
            return Where((), min_duration, max_duration)
        prefixes = tuple(
            sorted(
                {match for video, about in self.store.videos().items() if (match := prefix_of(video, about, folder))}
            )
        )
        if not prefixes:
            raise ValueError(f"{self.url} has no videos in folder '{folder}'")
        return Where(prefixes, min_duration, max_duration)

    def _check_sentence(self, sentence: str) -> None:
        """ValueError for a sentence without a word that the model knows; a warning for one that is too long."""
        if not sentence.strip():
            raise ValueError("the sentence is empty")
        tokenizer = self.model.tokenizer
        if tokenizer is None:
            raise ValueError("this model has no tokenizer: create the collection with --tokenizer")
        pieces = tokenizer(sentence, add_special_tokens=False, verbose=False)["input_ids"]
        if tokenizer.unk_token_id is not None and all(piece == tokenizer.unk_token_id for piece in pieces):
            raise ValueError(f"the model knows none of the words in '{sentence[:60]}'")
        longest = self.model.max_text_tokens - 2
        if len(pieces) > longest:
            logger.warning("the sentence has %d word pieces, of which the model reads %d", len(pieces), longest)

    def _moments(self, vector: np.ndarray, k: int, where: Where, *, without: Moment | None = None) -> list[Moment]:
        """The best moments for a vector; `without` is a window that none of them may overlap."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        count = 4 * k + 16
        while True:
            hits = self.store.nearest(vector, count, where)
            allowed = [hit for hit in hits if without is None or not overlap(hit, without)]
            best = without_overlaps(allowed, k)
            if len(best) == k or len(hits) < count:
                break
            count *= 4
        mean, spread = self._usual(vector)
        return [Moment(hit.video, hit.path, hit.start, hit.end, hit.score, (hit.score - mean) / spread) for hit in best]

    def _usual(self, vector: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation of a vector's scores, over the windows of some videos, evenly chosen."""
        with self._sampling:  # once, whatever the number of threads that search
            now = time.monotonic()
            if self._sample is None or now - self._sample[0] > SAMPLED_SECONDS:
                videos = list(self.store.videos())
                chosen = videos[:: max(1, -(-len(videos) // SAMPLED_VIDEOS))]
                rows = [self.store.rows(video).vectors for video in chosen]
                self._sample = now, np.concatenate(rows) if rows else np.zeros((0, len(vector)), np.float32)
            scores = self._sample[1] @ vector
        return (float(scores.mean()), float(scores.std()) or 1.0) if len(scores) else (0.0, 1.0)

    def _vector(self, video: str, start: float) -> np.ndarray:
        """The vector of a window; ValueError if the video has changed since."""
        windows = self.store.rows(video)
        (places,) = np.nonzero(windows.starts == start)
        if not len(places):
            raise ValueError(f"{self.url} has no moment of {video} that starts at {start:g} s")
        vector: np.ndarray = windows.vectors[places[0]]
        return vector


def moved_from(file: Found, lost: Sequence[str], known: Mapping[str, StoredVideo]) -> str | None:
    """The one of these videos, whose files are gone and of the same size, that has the content of this file."""
    content = file_sha256(file.path) if lost else ""
    return next((video for video in lost if known[video].content == content), None)


def outside(file: Path, folder: Path) -> str | None:
    """Why a file below a folder is not followed: a link leads out of the folder. None for other files."""
    return None if file.resolve().is_relative_to(folder.resolve()) else f"{file} is a link out of {folder}"


def with_absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `load_model` that JSON can hold and that mean the same in every working folder."""
    given = dict(options)
    if given.get("tokenizer") is not None:
        given["tokenizer"] = absolute_or_name(given["tokenizer"])
    if isinstance(given.get("encoder"), Mapping):
        given["encoder"] = pretrained.with_absolute_paths(given["encoder"])
    return given


def absolute_or_name(path: str | Path) -> str:
    """The absolute path of a file or folder that exists; other names, such as those of a hub, as they are."""
    return str(absolute(Path(path))) if Path(path).exists() else str(path)


def is_unicode(path: Path) -> bool:
    """Whether a path is valid UTF-8, as the strings of stores are; a file system allows any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_below(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path is one of the roots or below one."""
    return any(path.is_relative_to(root) for root in roots)


def root_name(file: Path, root: Path, roots: dict[str, str]) -> str:
    """The name, in ids, of the folder that a file was indexed under; a new one is added to `roots` (name -> folder).

    A folder within an indexed folder is part of that one.
    """
    for name, folder in roots.items():
        if file.is_relative_to(folder):
            return name
    name, number = root.name or "root", 2
    while name in roots:
        name, number = f"{root.name or 'root'}-{number}", number + 1
    roots[name] = str(root)
    return name


def prefix_of(video: str, about: StoredVideo, folder: str) -> str | None:
    """The beginning of a video's id that is in the folder, which is below a root, an id's beginning, or a path."""
    name, _, below = video.partition("/")
    wanted = f"{folder.rstrip('/')}/"
    if below.startswith(wanted):
        return f"{name}/{wanted}"
    if video.startswith(wanted):
        return wanted
    path, root = (f"{str(each).rstrip('/')}/" for each in (absolute(Path(folder).expanduser()), about.root))
    if str(about.path(video)).startswith(path):
        return f"{name}/{path.removeprefix(root)}" if path.startswith(root) else f"{name}/"
    return None


def weights_of(model: PretrainedEmbedder) -> str:
    """SHA-256 of a model's weights."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(f"{name}{tuple(tensor.shape)}".encode())
        hashed.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def encoder_of(model: PretrainedEmbedder) -> str:
    """SHA-256 of the settings of a model's feature encoder; files count by their content, not their path."""
    settings = {
        key: file_sha256(Path(value)) if isinstance(value, str) and Path(value).is_file() else value
        for key, value in sorted((model.encoder or {}).items())
    }
    return hashlib.sha256(repr(settings).encode()).hexdigest()
