"""Collections: video files that can be searched by text, by example, and by label."""

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from mmpt_plugin.errors import require
from mmpt_plugin.files import absolute, file_sha256
from mmpt_plugin.models import PretrainedEmbedder, load_model, pretrained
from mmpt_plugin.protocols import Store
from mmpt_plugin.search.indexing import alone, indexing
from mmpt_plugin.search.moments import Moment, overlap, window_at, without_overlaps
from mmpt_plugin.search.stores.store import StoredVideo, Where, Windows, store_of
from mmpt_plugin.search.video_files import Found, IndexReport, find, gone_from, moved_to, prefix_of, root_of, roots_of
from mmpt_plugin.search.windows import WindowWork, window_work, work_of
from mmpt_plugin.tokenizer import token_ids
from mmpt_plugin.video.workers import Failure, check_num_workers, outcomes

logger = logging.getLogger(__name__)

VERSION = 1  # of the settings and columns; a later version can read earlier ones
SETTINGS: dict[str, type] = {
    "version": int, "model": str, "options": dict, "window": int, "hop": int, "weights": str, "encoder": str,
}  # fmt: skip
COMMIT_ROWS = 4096  # a commit takes about 70 ms in LanceDB, however few rows it has
COMMIT_SECONDS = 10.0  # how much work a killed run loses at most, apart from the videos being decoded
SAMPLED_VIDEOS = 64  # whose windows give the usual scores of a sentence
SAMPLED_SECONDS = 60.0  # how long that sample is used


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
        check_settings(settings, str(url))
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
        found = find(given, known, report)
        gone = gone_from(given, found, known)
        if remove_missing and gone and not found:
            raise ValueError(
                f"no videos in {', '.join(map(str, given))}: nothing is removed, in case a disk is not mounted"
            )
        report.moved = moved_to(found, known)
        unchanged = {video for video, file in found.items() if file.is_unchanged(known.get(video))}
        report.unchanged = len(unchanged)
        waiting = [(video, found[video].path) for video in found if video not in unchanged | report.moved.keys()]
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

    def _move(self, moved: Mapping[str, str], found: Mapping[str, Found], known: Mapping[str, StoredVideo]) -> None:
        """Store the rows of moved files under new ids; if that is killed halfway, the next run removes the old."""
        names = set(roots_of(known))
        for video, old in moved.items():
            about = replace(known[old], root=found[video].root, modified=found[video].modified)
            self._store({video: (about, self.store.rows(old))}, names)
        self.store.remove(list(moved.values()))

    def _store(self, videos: Mapping[str, tuple[StoredVideo, Windows]], names: set[str]) -> None:
        """Store videos; ValueError if another run has given the name of their folder to a folder of its own.

        `names` are the folders' names that nobody else can take any more; those of the videos are added.
        """
        new = {name: about.root for video, (about, _) in videos.items() if (name := root_of(video)) not in names}
        if not new:
            self.store.replace(videos)
            return
        with alone(self.url):
            roots = roots_of(self.store.videos())
            for name, root in new.items():
                if (other := roots.get(name, root)) != root:
                    raise ValueError(
                        f"{self.url}: another run has meanwhile indexed {other} as '{name}', the name that was chosen "
                        f"for {root}: index {root} again"
                    )
            self.store.replace(videos)
        names |= new.keys()

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
        names = set(roots_of(known))
        pending: dict[str, tuple[StoredVideo, Windows]] = {}
        last = time.monotonic()

        def commit() -> None:
            if pending:
                self._store(pending, names)
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
        ids = token_ids([sentence], tokenizer)[0][0].tolist()
        if set(ids) <= set(tokenizer.all_special_ids):
            raise ValueError(f"the model knows none of the words in '{sentence[:60]}'")
        longest = self.model.max_text_tokens
        if len(ids) > longest:
            logger.warning("the sentence has %d tokens, of which the model reads %d", len(ids), longest)

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


def check_settings(settings: Mapping[str, Any], where: str) -> None:
    """ValueError, which names the collection `where`, unless this version can read its settings."""
    if require(settings, "version", int, where) > VERSION:
        raise ValueError(f"{where} was written by a newer version of mmpt_plugin, update it to read the collection")
    for key, kind in SETTINGS.items():
        require(settings, key, kind, where)
    if not 0 < settings["hop"] <= settings["window"]:
        raise ValueError(f"{where}: hop must be 1 to {settings['window']}, got {settings['hop']}")


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
