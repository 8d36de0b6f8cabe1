"""A collection in LanceDB: a folder, or a bucket such as s3://bucket/name. D width of the vectors."""

import errno
import fcntl
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from mmpt_plugin.errors import first_line
from mmpt_plugin.files import WriteFailed, locked
from mmpt_plugin.hardware import has_avx2
from mmpt_plugin.registry import register_store
from mmpt_plugin.search.stores.store import Hit, StoreConfig, StoredVideo, Where, Windows, settings_of

T = TypeVar("T")

TABLE = "moments"
SETTINGS = b"mmpt_plugin"  # the key of the settings in the table's metadata
INDEXED_ROWS = 50_000  # with fewer, the exact search takes less than 60 ms
PROBES = 40  # cells searched (docs/explanation/search.md has the recall)
MANY = 1000  # hits that PROBES cells contain for sure
SOURCE = re.compile(r", /\S+\.rs:\d+:\d+$")  # where in LanceDB an error was raised
MAGIC = b"LANC"  # how its files end
KEPT = timedelta(hours=1)  # for readers of an old version
ATTEMPTS = 30
CELLS = "cells_of_"  # the name of the index says for how many rows in a cell it was made


@register_store("lance", dataclass=StoreConfig)
class LanceStore:
    """LanceDB without a server. Several processes may read and write at the same time; each call is one commit."""

    def __init__(self, config: StoreConfig) -> None:
        if not has_avx2():
            raise ValueError("LanceDB needs a processor with AVX2: use a Milvus server, milvus+http://host:19530/name")
        self.url = config.url if "://" in config.url else str(Path(config.url).expanduser().absolute())
        self.folder = None if "://" in self.url else Path(self.url)
        self._opened: Any = None

    def create(self, settings: Mapping[str, Any], *, width: int) -> None:
        """See `Store.create`."""
        schema = schema_of(width).with_metadata({SETTINGS: json.dumps(dict(settings)).encode()})
        if self.folder is not None and self.folder.exists():
            check_free(self.folder)
        with self._errors():
            self._opened = self._connect().create_table(TABLE, schema=schema)

    def exists(self) -> bool:
        """See `Store.exists`."""
        if self.folder is not None and not (self.folder / f"{TABLE}.lance").is_dir():
            return False
        with self._errors():
            connection = self._connect()
            return TABLE in connection.list_tables().tables and not self._is_unfinished(connection)

    def settings(self) -> dict[str, Any]:
        """See `Store.settings`."""
        with self._errors():
            schema = self._table().schema
        metadata = schema.metadata or {}
        if SETTINGS not in metadata:
            raise ValueError(f"{self.url} is a LanceDB table, but not a collection of mmpt_plugin")
        present = dict(zip(schema.names, schema.types, strict=True))
        for column in schema_of(getattr(present.get("vector"), "list_size", 1)):
            if present.get(column.name) != column.type:
                raise ValueError(f"{self.url} is damaged: it has no column '{column.name}' of type {column.type}")
        return settings_of(metadata[SETTINGS].decode(errors="replace"), self.url)

    def replace(self, videos: Mapping[str, tuple[StoredVideo, Windows]]) -> None:
        """See `Store.replace`. Windows that a changed video no longer has go first, in a commit of their own."""
        with self._locked("write.lock"), self._errors():
            rows = self._rows(videos)
            table = self._table()
            present = table.search().where(one_of(list(videos))).select(["id"]).to_arrow()["id"].to_pylist()
            if not present and self.folder is not None:  # nobody else adds them: the folder is locked
                self._commit(lambda: table.add(rows))
                return
            if gone := set(present) - set(rows["id"].to_pylist()):
                self._commit(lambda: table.delete(f"id IN ({', '.join(map(quoted, gone))})"))
            # By a single column: with two, or with `when_not_matched_by_source_delete`, it reads the whole table.
            upsert = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            self._commit(lambda: upsert.execute(rows))

    def _rows(self, videos: Mapping[str, tuple[StoredVideo, Windows]]) -> Any:
        """The rows of these videos as a table of Arrow."""
        import pyarrow as pa

        counts = [len(windows.starts) for _, windows in videos.values()]
        columns: dict[str, Any] = {"video": np.repeat(list(videos), counts)}
        for name in ("root", "size", "modified", "content", "duration"):
            columns[name] = np.repeat([getattr(video, name) for video, _ in videos.values()], counts)
        columns["start"] = np.concatenate([windows.starts for _, windows in videos.values()])
        columns["end"] = np.concatenate([windows.ends for _, windows in videos.values()])
        columns["id"] = [f"{video}@{start}" for video, start in zip(columns["video"], columns["start"], strict=True)]
        vectors = np.concatenate([windows.vectors for _, windows in videos.values()]).astype(np.float32)
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        return pa.table(columns, schema=self._table().schema)

    def remove(self, videos: Sequence[str]) -> None:
        """See `Store.remove`."""
        if videos:
            self._commit(lambda: self._table().delete(one_of(videos)))

    def nearest(self, vector: Float[np.ndarray, " D"], k: int, where: Where) -> list[Hit]:
        """See `Store.nearest`."""
        names = ["video", "root", "start", "end"]
        with self._errors():
            query = self._table().search(vector.astype(np.float32), vector_column_name="vector").distance_type("dot")
            query = query.nprobes(PROBES).limit(k).select([*names, "_distance"])
            if condition := sql(where):
                query = query.where(condition, prefilter=True)
            if condition or k > MANY:  # more cells, while there are fewer than k hits; twice as slow for all others
                query = query.maximum_nprobes(0)
            found = query.to_arrow()
        rows = zip(*(found[name].to_pylist() for name in [*names, "_distance"]), strict=True)
        # LanceDB's distance "dot" is 1 minus the dot product.
        return [Hit(video, root, start, end, 1 - distance) for video, root, start, end, distance in rows]

    def rows(self, video: str) -> Windows:
        """See `Store.rows`."""
        with self._errors():
            found = self._table().search().where(one_of([video])).select(["start", "end", "vector"]).to_arrow()
        found = found.sort_by("start").combine_chunks()
        starts, ends = (found[name].to_numpy() for name in ("start", "end"))
        width = found.schema.field("vector").type.list_size
        vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(len(starts), width)
        return Windows(starts, ends, vectors)

    def videos(self) -> dict[str, StoredVideo]:
        """See `Store.videos`; it reads the first window of each video."""
        names = ["root", "size", "modified", "content", "duration"]
        with self._errors():
            found = self._table().search().where("start = 0").select(["video", *names]).to_arrow()
        rows = zip(*(found[name].to_pylist() for name in ["video", *names]), strict=True)
        return {video: StoredVideo(*about) for video, *about in sorted(rows)}

    def compact(self) -> None:
        """See `Store.compact`; versions of the last hour are kept for their readers."""
        from lancedb.index import BTree, IvfFlat

        with self._locked("compact.lock", wait=False) as alone, self._errors():
            table = self._table()
            rows = table.count_rows()
            if not alone or not rows:
                return
            self._commit(lambda: table.optimize(cleanup_older_than=KEPT))  # first: it would copy a new index
            named = {index.name: index.columns for index in table.list_indices()}
            for column in ("id", "video"):
                if [column] not in named.values():
                    self._commit(partial(table.create_index, column, config=BTree()))
            cell = round(rows**0.5)  # rows in a cell, and number of cells
            present = [name for name, columns in named.items() if columns == ["vector"]]
            fits = any(cell / 2 <= int(name.removeprefix(CELLS)) <= cell * 2 for name in present)
            if rows >= INDEXED_ROWS and not fits:
                # Not by num_partitions: `optimize` would join cells until they have 8192 rows.
                config = IvfFlat(distance_type="dot", target_partition_size=cell)
                self._commit(lambda: table.create_index("vector", config=config, name=f"{CELLS}{cell}"))
                for name in present:
                    self._commit(partial(table.drop_index, name))
            self._commit(lambda: table.optimize(cleanup_older_than=KEPT))

    def _is_unfinished(self, connection: Any) -> bool:
        """Whether `create` was killed before its commit; it can be called again."""
        if self.folder is not None and any((self.folder / f"{TABLE}.lance" / "data").glob("*")):
            return False  # damaged
        try:
            connection.open_table(TABLE)
        except ValueError as error:
            return "was not found" in str(error)
        return False

    def _connect(self) -> Any:
        # It warns for every empty cell.
        os.environ.setdefault("LANCEDB_LOG", "error")
        import lancedb  # seconds, which `mmpt list` does not need

        # Without it a reader keeps the version that it opened.
        return lancedb.connect(self.url, read_consistency_interval=timedelta(0))

    def _table(self) -> Any:
        if self._opened is None:
            if not self.exists():
                raise ValueError(
                    f"{self.url} is not a collection: create one with mmpt index VIDEOS --model MODEL "
                    f"--collection {self.url}"
                )
            with self._errors():
                self._opened = self._connect().open_table(TABLE)
        return self._opened

    def _commit(self, write: Callable[[], T]) -> T:
        """`write()`, again if another process has committed at the same time.

        LanceDB does not notice if the last write to a file fails. Then the version before is restored.
        """
        files, version = self._files(), self._table().version
        for attempt in range(ATTEMPTS):
            try:
                with self._errors():
                    result = write()
                    self._check_files(files, version)
                    return result
            except ValueError as error:
                if "conflict" not in str(error).removeprefix(self.url).lower() or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
                self._table().checkout_latest()
        raise AssertionError

    def _files(self) -> set[Path]:
        """The files of data and indexes; empty for a bucket, which has no files that are half written."""
        found = () if self.folder is None else (self.folder / f"{TABLE}.lance").glob("*/**/*")
        return {path for path in found if path.suffix in (".lance", ".idx") and not path.name.startswith(".")}

    def _check_files(self, known: set[Path], version: int) -> None:
        """OSError, after the table's earlier version is restored, if one of the new files is not complete."""
        for path in self._files() - known:
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - len(MAGIC)))
                if file.read() != MAGIC:
                    self._table().checkout(version)
                    self._table().restore()
                    raise WriteFailed(errno.EIO, os.strerror(errno.EIO), str(path))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """LanceDB's errors as one line: it raises RuntimeError, ValueError and OSError, and panics if it is damaged."""
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:
            if str(error).startswith(self.url):
                raise
            raise ValueError(f"{self.url}: {SOURCE.sub('', first_line(error))}") from error
        except BaseException as error:
            if "Panic" not in type(error).__name__:  # RustPanic or PanicException
                raise
            raise ValueError(f"{self.url} is damaged: LanceDB can't read it") from error

    def _locked(self, name: str, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold a lock file of this folder; False, at once, if another process has it and `wait` is False.

        A bucket has no locks: there, LanceDB refuses commits that conflict, and they are tried again.
        """
        if self.folder is None:
            return nullcontext(True)
        return locked(self.folder / name, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def schema_of(width: int) -> Any:
    """The columns of a collection, as a schema of Arrow."""
    import pyarrow as pa

    return pa.schema([
        ("id", pa.string()), ("video", pa.string()), ("root", pa.string()), ("size", pa.int64()),
        ("modified", pa.int64()), ("content", pa.string()), ("duration", pa.float64()),
        ("start", pa.float64()), ("end", pa.float64()),
        ("vector", pa.list_(pa.float32(), width)),
    ])  # fmt: skip


def check_free(folder: Path) -> None:
    """ValueError unless a collection can be created in the folder: it is empty, or a killed `create` left it."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a collection")
    if not all(path.name.endswith((f"{TABLE}.lance", ".lock")) for path in folder.iterdir()):
        raise ValueError(f"{folder} is a folder with other files: choose another --collection")


def one_of(videos: Sequence[str]) -> str:
    """The SQL condition for the rows of these videos."""
    return f"video IN ({', '.join(map(quoted, videos))})"


def sql(where: Where) -> str:
    """The SQL condition of a search; empty if all rows are allowed."""
    parts = [f"starts_with(video, {quoted(prefix)})" for prefix in where.prefixes]
    conditions = [f"({' OR '.join(parts)})"] if parts else []
    if where.min_duration is not None:
        conditions.append(f"duration >= {where.min_duration}")
    if where.max_duration is not None:
        conditions.append(f"duration <= {where.max_duration}")
    return " AND ".join(conditions)


def quoted(text: str) -> str:
    """A string of SQL."""
    return "'" + text.replace("'", "''") + "'"
