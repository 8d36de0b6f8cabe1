"""A collection in a Milvus server, 2.3 or later: milvus+http://host:19530/name. D width of the vectors.

Milvus has no transactions. A replaced video first loses its window at 0 s, and gets it again when all others are
written: `videos` lists only videos that have it, so a video that a killed process has half written is not listed, and
is written again by the next `replace`. While a video is replaced, searches may find some of its old and new windows.
"""

import heapq
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float

from mmpt_plugin.errors import first_line
from mmpt_plugin.registry import register_store
from mmpt_plugin.search.stores.store import Hit, StoreConfig, StoredVideo, Where, Windows, settings_of

T = TypeVar("T")

SETTINGS = "mmpt_plugin "  # the collection's description starts with it, JSON follows
SECONDS = 10.0  # until the server must have answered a request
LOAD_SECONDS = 120.0  # until it must have created or loaded the collection
INDEX = {"index_type": "HNSW", "metric_type": "IP", "params": {"M": 16, "efConstruction": 200}}
CANDIDATES = 64  # of a search in the graph: recall@10 is .97 with 32 at 100,000 rows
MOST = 16_384  # rows that Milvus returns for one request
PAGE = 4096  # rows of a request that reads many
RECENT = 15.0  # seconds after a write in which this process waits for its own writes; "Bounded" is 5 seconds behind
BATCH_BYTES = 4 << 20  # vectors of a request that writes; the server's limit is 64 MB
BATCH_IDS = 1000
FOUND = ("video", "root", "start", "end")
ABOUT = ("root", "size", "modified", "content", "duration")


@register_store("milvus", dataclass=StoreConfig)
class MilvusStore:
    """Milvus, for collections that several machines share. The name and password are read from MILVUS_TOKEN."""

    def __init__(self, config: StoreConfig) -> None:
        self.url = config.url
        split = urlsplit(config.url.removeprefix("milvus+"))
        self.name = split.path.strip("/")
        self.address = f"{split.scheme}://{split.netloc}"
        if not re.fullmatch(r"https?://[^/@]+", self.address) or not re.fullmatch(
            r"[A-Za-z_]\w{0,254}", self.name, re.A
        ):
            raise ValueError(
                f"{self.url}: expected milvus+http://host:19530/name; the name has letters, digits and underscores"
            )
        self._connected: Any = None
        self._width = 0  # set when it is loaded
        self._wrote = -RECENT  # when this process last wrote, a time of time.monotonic()

    def create(self, settings: Mapping[str, Any], *, width: int) -> None:
        """See `Store.create`."""
        with self._errors():
            client = self._client()
            if client.has_collection(self.name, timeout=SECONDS):
                raise ValueError(f"{self.url} exists already")
            client.create_collection(
                self.name,
                schema=schema_of(width, SETTINGS + json.dumps(dict(settings))),
                num_shards=1,  # one shard applies all writes in their order
                consistency_level="Bounded",
                timeout=LOAD_SECONDS,
            )
        self._loaded()

    def exists(self) -> bool:
        """See `Store.exists`."""
        with self._errors():
            return bool(self._client().has_collection(self.name, timeout=SECONDS))

    def settings(self) -> dict[str, Any]:
        """See `Store.settings`."""
        if not self.exists():
            raise ValueError(
                f"{self.url} is not a collection: create one with mmpt index VIDEOS --model MODEL "
                f"--collection {self.url}"
            )
        with self._errors():
            description = self._client().describe_collection(self.name, timeout=SECONDS)["description"]
        if not description.startswith(SETTINGS):
            raise ValueError(f"{self.url} is a Milvus collection, but not one of mmpt_plugin")
        return settings_of(description.removeprefix(SETTINGS), self.url)

    def replace(self, videos: Mapping[str, tuple[StoredVideo, Windows]]) -> None:
        """See `Store.replace`; the head of this file says what readers may see meanwhile."""
        rows = {row["key"]: row for video, (about, windows) in videos.items() for row in rows_of(video, about, windows)}
        old = self._keys(videos)
        firsts = [key_of(video, 0.0) for video in videos]
        self._delete(old.intersection(firsts))
        self._upsert([row for key, row in rows.items() if key not in firsts])
        self._delete(old - rows.keys() - set(firsts))
        self._upsert([rows[key] for key in firsts if key in rows])

    def remove(self, videos: Sequence[str]) -> None:
        """See `Store.remove`."""
        for some in parts(videos, BATCH_IDS):
            self._delete(self._keys(some))

    def nearest(self, vector: Float[np.ndarray, " D"], k: int, where: Where) -> list[Hit]:
        """See `Store.nearest`; at most 16,384. Writes of other processes are found within 5 seconds.

        Rows that are not in the graph yet are searched in the nearest cells of a coarse index, which miss hits of a
        narrow filter. When there are too few hits, the rows that the filter allows are read and compared here.
        """
        limit = min(k, MOST)
        condition, level = expression(where), self._consistency()
        client = self._loaded()
        with self._errors():
            (hits,) = client.search(
                self.name,
                data=[vector.astype(np.float32)],
                filter=condition,
                limit=limit,
                output_fields=list(FOUND),
                search_params={"metric_type": "IP", "params": {"ef": max(CANDIDATES, 2 * limit)}},
                consistency_level=level,
                timeout=SECONDS,
            )
            if len(hits) < limit:
                count = client.query(self.name, condition, ["count(*)"], consistency_level=level, timeout=SECONDS)
                if len(hits) < count[0]["count(*)"]:
                    return self._exact(vector, limit, condition)
        return [hit_of(hit["entity"], float(hit["distance"])) for hit in hits]

    def _exact(self, vector: Float[np.ndarray, " D"], k: int, condition: str) -> list[Hit]:
        """The best `k` of all rows that meet a condition."""
        hits = []
        for row in self._query(condition, [*FOUND, "vector"], consistency=self._consistency()):
            hits.append(hit_of(row, float(np.array(row["vector"], np.float32) @ vector)))
        return heapq.nlargest(k, hits, key=lambda hit: hit.score)

    def rows(self, video: str) -> Windows:
        """See `Store.rows`."""
        names = ["start", "end", "vector"]
        found = list(self._query(f'id == "{id_of(video)}"', names, consistency=self._consistency()))
        found.sort(key=lambda row: row["start"])
        starts, ends = (np.array([row[name] for row in found], np.float64) for name in ("start", "end"))
        vectors = np.array([row["vector"] for row in found], np.float32).reshape(len(found), self._width)
        return Windows(starts, ends, vectors)

    def videos(self) -> dict[str, StoredVideo]:
        """See `Store.videos`; those that have a window at 0 s."""
        found = self._query("start == 0.0", ["video", *ABOUT], consistency="Strong")
        videos = {row["video"]: StoredVideo(*(row[name] for name in ABOUT)) for row in found}
        return dict(sorted(videos.items()))

    def compact(self) -> None:
        """See `Store.compact`. Milvus does all of this by itself sooner or later; here it begins now."""
        client = self._loaded()
        with self._errors():
            client.flush(self.name, timeout=LOAD_SECONDS)
            client.compact(self.name, timeout=SECONDS)

    def _client(self) -> Any:
        if self._connected is None:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from pymilvus import MilvusClient  # seconds, which `mmpt list` does not need

            logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises
            token = os.environ.get("MILVUS_TOKEN", "")
            with self._errors():
                self._connected = MilvusClient(self.address, token=token, timeout=SECONDS / 2, dedicated=True)
        return self._connected

    def _loaded(self) -> Any:
        """The client, when the collection can be searched; a killed `create` is completed."""
        if not self._width:
            self.settings()
            with self._errors():
                client = self._client()
                fields = client.describe_collection(self.name, timeout=SECONDS)["fields"]
                if not client.list_indexes(self.name, timeout=SECONDS):
                    index = client.prepare_index_params("vector", **INDEX)
                    client.create_index(self.name, index, timeout=LOAD_SECONDS)
                client.load_collection(self.name, timeout=LOAD_SECONDS)
            (self._width,) = (field["params"]["dim"] for field in fields if field["name"] == "vector")
        return self._client()

    def _consistency(self) -> str:
        """The level of a search: a process finds all that it wrote itself, and of others what is 5 seconds old.

        "Session" is not used: with Milvus 2.3 it misses the process's own deletes.
        """
        return "Strong" if time.monotonic() - self._wrote < RECENT else "Bounded"

    def _keys(self, videos: Iterable[str]) -> set[str]:
        """The keys of all rows of these videos."""
        ids = json.dumps([id_of(video) for video in videos])
        return {row["key"] for row in self._query(f"id in {ids}", ["key"], consistency="Strong")}

    def _query(self, condition: str, names: Sequence[str], *, consistency: str) -> Iterator[dict[str, Any]]:
        """The rows that meet a condition, in any order.

        Milvus limits the rows of a request. Keys are hashes, so their first digits divide the rows into equal parts.
        """
        client = self._loaded()
        waiting = [""]
        while waiting:
            digits = waiting.pop()
            part = " and ".join([*([condition] if condition else []), f'key >= "{digits}" and key < "{digits}g"'])
            with self._errors():
                rows = client.query(
                    self.name, part, list(names), limit=PAGE, consistency_level=consistency, timeout=SECONDS
                )
            if len(rows) == PAGE:
                waiting += [digits + digit for digit in "0123456789abcdef"]
            else:
                yield from rows

    def _upsert(self, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        client = self._loaded()
        for some in parts(rows, max(1, BATCH_BYTES // rows[0]["vector"].nbytes)):
            with self._errors():
                client.upsert(self.name, some, timeout=SECONDS)
            self._wrote = time.monotonic()

    def _delete(self, keys: Iterable[str]) -> None:
        if keys := sorted(keys):
            with self._errors():
                self._loaded().delete(self.name, keys, timeout=SECONDS)
            self._wrote = time.monotonic()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The errors of pymilvus and of gRPC as one line. The next call connects again, in case the server is back."""
        try:
            yield
        except Exception as error:
            if str(error).startswith(self.url):
                raise
            # gRPC raises a ValueError for a connection that another thread has closed.
            if not isinstance(error, ValueError) and type(error).__module__.split(".")[0] not in ("pymilvus", "grpc"):
                raise
            self._connected = None
            raise ValueError(f"{self.url}: {reason_of(error)}") from error


def parts(items: Sequence[T], length: int) -> Iterator[list[T]]:
    """The items in lists of at most this length."""
    for first in range(0, len(items), length):
        yield list(items[first : first + length])


def schema_of(width: int, description: str) -> Any:
    """The columns of a collection; `id` and `key` are hashes, so expressions need no strings of users."""
    from pymilvus import CollectionSchema, DataType, FieldSchema

    text: dict[str, Any] = {"dtype": DataType.VARCHAR, "max_length": 16_384}
    integer, number = {"dtype": DataType.INT64}, {"dtype": DataType.DOUBLE}
    columns = {
        "key": text | {"is_primary": True}, "id": text, "video": text, "root": text, "size": integer,
        "modified": integer, "content": text, "duration": number, "start": number, "end": number,
        "vector": {"dtype": DataType.FLOAT_VECTOR, "dim": width},
    }  # fmt: skip
    return CollectionSchema([FieldSchema(name, **column) for name, column in columns.items()], description)


def rows_of(video: str, about: StoredVideo, windows: Windows) -> Iterator[dict[str, Any]]:
    """The rows of a video."""
    same = {"id": id_of(video), "video": video} | {name: getattr(about, name) for name in ABOUT}
    for start, end, vector in zip(windows.starts.tolist(), windows.ends.tolist(), windows.vectors, strict=True):
        yield same | {"key": key_of(video, start), "start": start, "end": end, "vector": vector.astype(np.float32)}


def hit_of(row: Mapping[str, Any], score: float) -> Hit:
    """A row and its score as a hit."""
    return Hit(row["video"], row["root"], row["start"], row["end"], score)


def id_of(video: str) -> str:
    """What expressions call a video."""
    return blake2b(video.encode(), digest_size=16).hexdigest()


def key_of(video: str, start: float) -> str:
    """The primary key of a window."""
    return blake2b(f"{start!r} {video}".encode(), digest_size=16).hexdigest()


def expression(where: Where) -> str:
    """The expression of a search; empty if all rows are allowed.

    A prefix is a range of strings, since `like` has its own special characters.
    """
    ranges = [f"(video >= {quoted(prefix)} and video < {quoted(after(prefix))})" for prefix in where.prefixes]
    conditions = [f"({' or '.join(ranges)})"] if ranges else []
    if where.min_duration is not None:
        conditions.append(f"duration >= {float(where.min_duration)!r}")
    if where.max_duration is not None:
        conditions.append(f"duration <= {float(where.max_duration)!r}")
    return " and ".join(conditions)


def after(prefix: str) -> str:
    """The first string that does not start with the prefix, in the order of UTF-8."""
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)


def quoted(text: str) -> str:
    """A string of Milvus's expressions."""
    return json.dumps(text, ensure_ascii=False)


def reason_of(error: Exception) -> str:
    """One short line about an error of pymilvus or gRPC."""
    message = getattr(error, "message", "") or str(error)
    if any(word in message for word in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "Fail connecting", "Retry timeout")):
        return "the server does not answer"
    return first_line(Exception(message))[:300]
