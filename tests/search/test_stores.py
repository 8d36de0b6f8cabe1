"""What all stores do: a folder, a bucket and a Milvus server keep windows and find the nearest."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from pymilvus import MilvusClient

from mmpt_plugin.cli import main
from mmpt_plugin.search import Collection
from mmpt_plugin.search.stores import lance
from mmpt_plugin.search.stores.store import StoredVideo, Where, Windows, store_of
from tests.launch.cluster import wait_until
from tests.search.milvus_server import Forwarder, listening
from tests.search.oracle import (
    NAMES,
    WIDTH,
    Oracle,
    assert_equal_windows,
    random_video,
    run_operations,
)
from tests.search.places import kinds, place

SETTINGS = {"version": 1, "model": "/models/é", "options": {"encoder": "{_name: s3d}"}, "window": 6, "hop": 2}
EVERYWHERE = Where()
NUM_SEEDS = int(os.environ.get("STORE_SEEDS", "1"))  # of the long runs of random operations


def skip_long(store):
    """A bucket and a server take minutes, which `STORE_SEEDS=10 pytest tests/search/test_stores.py` gives them."""
    if "STORE_SEEDS" not in os.environ and "://" in store.url:
        pytest.skip("set STORE_SEEDS for the long tests of buckets and servers")


# A process of its own: it says that it is ready, and writes when it is told to.
WRITER = """
import sys
import numpy as np
from mmpt_plugin.search.stores import lance
from mmpt_plugin.search.stores.store import store_of
from tests.search.oracle import random_video
url, name, count, compact = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
lance.INDEXED_ROWS = 100
store, rng = store_of(url), np.random.default_rng(0)
store.videos()
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    store.replace({f"{name}/{number}.mp4": random_video(rng, num_windows=7)})
    if compact and number % compact == compact - 1:
        store.compact()
"""


@pytest.fixture(scope="module", params=kinds())
def new_url(request):
    with place(request.param, request) as function:
        yield function


@pytest.fixture
def store(new_url):
    store = store_of(new_url())
    store.create(SETTINGS, width=WIDTH)
    yield store
    if store.url.startswith("milvus"):  # a server with many loaded collections is slow
        MilvusClient(store.address).drop_collection(store.name)


def video(vectors, *, root="/disk/videos", duration=9.0):
    """A video with one window, of 6 s, every 2 s."""
    starts = np.arange(len(vectors)) * 2.0
    return StoredVideo(root, 1, 2, "c", duration), Windows(starts, starts + 6.0, np.array(vectors, np.float32))


def padded(*numbers):
    return [*numbers, *[0] * (WIDTH - len(numbers))]


def start_writer(store, name, *, count, compact=0):
    words = [sys.executable, "-c", WRITER, store.url, name, str(count), str(compact)]
    writer = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n", writer.stderr.read()
    return writer


def go(writers):
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()


def ended(writer):
    _, errors = writer.communicate(timeout=240)
    assert (writer.returncode, errors) == (0, "")


def test_a_new_store_is_empty_and_keeps_its_settings(new_url):
    store = store_of(new_url())
    assert not store.exists()
    store.create(SETTINGS, width=WIDTH)
    again = store_of(store.url)
    assert again.exists()
    assert again.settings() == SETTINGS
    assert again.videos() == {}
    assert again.nearest(np.ones(WIDTH, np.float32), 5, EVERYWHERE) == []
    assert again.rows("none.mp4").vectors.shape == (0, WIDTH)
    again.remove(["none.mp4"])
    again.compact()


def test_hits_are_sorted_by_their_raw_dot_products(store):
    """Worked by hand: (1, 2) with (3, 0), (0, 4), (-1, -1), (10, 10); the cosine would rank (0, 4) first."""
    store.replace({"a/1.mp4": video([padded(3, 0), padded(0, 4), padded(-1, -1)])})
    store.replace({"a/2.mp4": video([padded(10, 10)], root="/other")})
    hits = store.nearest(np.array(padded(1, 2), np.float32), 10, EVERYWHERE)
    assert [(hit.video, hit.root, hit.start, hit.end) for hit in hits] == [
        ("a/2.mp4", "/other", 0, 6),
        ("a/1.mp4", "/disk/videos", 2, 8),
        ("a/1.mp4", "/disk/videos", 0, 6),
        ("a/1.mp4", "/disk/videos", 4, 10),
    ]
    assert [hit.score for hit in hits] == pytest.approx([30, 8, 3, -3])
    assert hits[0].path == Path("/other/2.mp4")
    assert store.nearest(np.array(padded(1, 2), np.float32), 2, EVERYWHERE) == hits[:2]


def test_a_video_is_replaced_as_a_whole(store):
    store.replace({"a.mp4": video([padded(1)] * 5), "b.mp4": video([padded(2)] * 3)})
    shorter = video([padded(7), padded(8)], duration=3.5)
    store.replace({"a.mp4": shorter})
    assert_equal_windows(store.rows("a.mp4"), shorter[1])
    assert len(store.rows("b.mp4").starts) == 3
    assert list(store.videos()) == ["a.mp4", "b.mp4"]
    assert store.videos()["a.mp4"] == shorter[0]
    store.remove(["a.mp4", "none.mp4"])
    assert list(store.videos()) == ["b.mp4"]
    assert len(store.nearest(np.ones(WIDTH, np.float32), 100, EVERYWHERE)) == 3


@pytest.mark.parametrize("seed", range(2))
def test_random_operations_give_what_a_store_in_memory_gives(store, seed, monkeypatch):
    """With an index as soon as there are a few rows."""
    monkeypatch.setattr(lance, "INDEXED_ROWS", 60)
    run_operations(store, np.random.default_rng(seed), steps=60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 100 + NUM_SEEDS))
def test_many_random_operations_give_what_a_store_in_memory_gives(store, seed, monkeypatch):
    skip_long(store)
    monkeypatch.setattr(lance, "INDEXED_ROWS", 60)
    run_operations(store, np.random.default_rng(seed), steps=200)


def test_any_name_can_be_stored_searched_and_removed(store):
    names = [
        *("it's", "100%", "a_b", 'say "hi"', "back\\slash", "\\"),
        *("line\nbreak", "tab\t", "日本 😀 é", "'; --", "*?[x]"),
    ]
    others = {f"root/{other}/v.mp4": video([padded(1)]) for other in ("a", "axb", "100", "other")}
    store.replace(others)
    for name in names:
        store.replace({f"root/{name}/v.mp4": video([padded(2), padded(3)])})
        hits = store.nearest(np.ones(WIDTH, np.float32), 10, Where((f"root/{name}/",)))
        assert [hit.video for hit in hits] == [f"root/{name}/v.mp4"] * 2
        assert len(store.rows(f"root/{name}/v.mp4").starts) == 2
        assert f"root/{name}/v.mp4" in store.videos()
        store.remove([f"root/{name}/v.mp4"])
        assert store.videos().keys() == others.keys(), name


def test_two_processes_write_at_once_and_a_third_reads(store):
    """No row is lost, whatever is listed is complete, and nothing is logged."""
    writers = [start_writer(store, name, count=10, compact=4) for name in ("one", "two")]
    go(writers)
    while any(writer.poll() is None for writer in writers):
        for listed in store.videos():
            assert len(store.rows(listed).starts) == 7
    for writer in writers:
        ended(writer)
    assert len(store.videos()) == 20
    assert len(store.nearest(np.ones(WIDTH, np.float32), 1000, EVERYWHERE)) == 20 * 7


def test_compaction_is_tried_again_when_a_write_was_faster(tmp_path):
    url = str(tmp_path / "collection")
    store_of(url).create(SETTINGS, width=WIDTH)
    store_of(url).replace({f"{number}.mp4": video([padded(1)] * 5) for number in range(60)})

    def replace_videos(store):
        for number in range(20):
            store.replace({f"{number}.mp4": video([padded(2)] * 4)})

    def remove_videos(store):
        for number in range(20, 40):
            store.remove([f"{number}.mp4"])

    def compact(store):
        for _ in range(10):
            store.compact()

    with ThreadPoolExecutor() as threads:
        running = [threads.submit(work, store_of(url)) for work in (replace_videos, remove_videos, compact)]
    for work in running:
        work.result()
    assert len(store_of(url).nearest(np.ones(WIDTH, np.float32), 1000, EVERYWHERE)) == 20 * 4 + 20 * 5


def search_while_another_process_indexes(store, *, searches):
    """Each search has its five hits, while rows are replaced, compacted and indexed."""
    rng = np.random.default_rng(1)
    store.replace({f"old/{number}.mp4": random_video(rng, num_windows=7) for number in range(30)})
    done = 0
    while done < searches:
        writer = start_writer(store, "new", count=max(25, searches // 5), compact=5)
        go([writer])
        while writer.poll() is None:
            hits = store.nearest(rng.normal(size=WIDTH).astype(np.float32), 5, EVERYWHERE)
            assert len(hits) == 5
            done += 1
        ended(writer)


def test_searches_work_while_another_process_indexes(store):
    search_while_another_process_indexes(store, searches=50)


@pytest.mark.slow
def test_a_thousand_searches_work_while_another_process_indexes(store):
    skip_long(store)
    search_while_another_process_indexes(store, searches=1000)


def clustered(rng, *, num_videos):
    """Videos of 50 windows around 40 topics; the vectors' lengths differ by a factor of two."""
    topics = rng.normal(size=(40, WIDTH))
    videos = {}
    for number in range(num_videos):
        vectors = topics[rng.integers(40, size=50)] + 0.5 * rng.normal(size=(50, WIDTH))
        videos[f"v/{number}.mp4"] = video(vectors * rng.uniform(5, 10, size=(50, 1)), duration=104.0)
    return videos


def test_an_index_finds_nearly_all_that_an_exact_search_finds(store, monkeypatch):
    """4,000 rows; LanceDB probes a quarter of its 63 cells."""
    monkeypatch.setattr(lance, "INDEXED_ROWS", 1000)
    monkeypatch.setattr(lance, "PROBES", 16)
    rng, oracle = np.random.default_rng(2), Oracle()
    videos = clustered(rng, num_videos=80)
    for target in (store, oracle):
        target.replace(videos)
    store.compact()
    found = 0
    for _ in range(50):
        vector = rng.normal(size=WIDTH).astype(np.float32)
        best = {(hit.video, hit.start) for hit in oracle.nearest(vector, 10, EVERYWHERE)}
        found += len(best & {(hit.video, hit.start) for hit in store.nearest(vector, 10, EVERYWHERE)})
    assert found / 500 >= 0.95
    assert len(store.videos()) == 80


def test_an_index_misses_no_rows_of_a_narrow_filter_or_a_large_k(store, monkeypatch):
    monkeypatch.setattr(lance, "INDEXED_ROWS", 1000)
    monkeypatch.setattr(lance, "PROBES", 1)
    videos = clustered(np.random.default_rng(3), num_videos=80)
    store.replace(videos)
    store.compact()
    vector = np.ones(WIDTH, np.float32)
    assert len(store.nearest(vector, 60, Where(("v/7.mp4",)))) == 50
    assert len(store.nearest(vector, 5000, EVERYWHERE)) == 4000


def test_rows_written_after_the_index_was_built_are_found(store, monkeypatch):
    monkeypatch.setattr(lance, "INDEXED_ROWS", 1000)
    monkeypatch.setattr(lance, "PROBES", 1)
    store.replace(clustered(np.random.default_rng(4), num_videos=30))
    store.compact()
    store.replace({"new.mp4": video([padded(900)])})
    assert store.nearest(np.array(padded(1), np.float32), 1, EVERYWHERE)[0].video == "new.mp4"
    store.compact()
    assert store.nearest(np.array(padded(1), np.float32), 1, EVERYWHERE)[0].video == "new.mp4"
    assert len(store.videos()) == 31


def test_a_second_collection_of_the_same_url_is_refused(store):
    with pytest.raises(ValueError, match="exists") as raised:
        store_of(store.url).create(SETTINGS, width=WIDTH)
    assert_one_line(raised, store.url)
    assert store.settings() == SETTINGS


def test_there_is_no_collection_to_open(new_url):
    url = new_url()
    with pytest.raises(ValueError, match="is not a collection: create one with mmpt index") as raised:
        Collection.open(url)
    assert_one_line(raised, url)


def test_a_collection_of_a_newer_version_is_not_opened(new_url):
    store = store_of(new_url())
    store.create(SETTINGS | {"version": 2}, width=WIDTH)
    with pytest.raises(ValueError, match="written by a newer version of mmpt_plugin") as raised:
        Collection.open(store.url)
    assert_one_line(raised, store.url)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": "1"}, "'version' must be an integer, got \"1\""),
        ({"window": None}, "'window' must be an integer, got null"),
        ({"options": []}, r"'options' must be an object, got \[\]"),
        ({"hop": 9}, "hop must be 1 to 6, got 9"),
    ],
)
def test_a_collection_with_wrong_settings_is_not_opened(tmp_path, changed, message):
    store = store_of(str(tmp_path / "collection"))
    store.create(SETTINGS | {"weights": "w", "encoder": "e"} | changed, width=WIDTH)
    with pytest.raises(ValueError, match=message) as raised:
        Collection.open(store.url)
    assert_one_line(raised, store.url)


def assert_one_line(raised, url):
    assert str(raised.value).startswith(url)
    assert "\n" not in str(raised.value)


def test_a_file_or_a_folder_with_other_files_is_not_a_collection(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("x")
    for name, reason in {"file": "is a file", "folder": "is a folder with other files"}.items():
        url = str(tmp_path / name)
        assert main(["search", url, "onions"]) == 2
        assert capsys.readouterr().err.startswith(f"mmpt search: {url} is not a collection")
        with pytest.raises(ValueError, match=reason) as raised:
            store_of(url).create(SETTINGS, width=WIDTH)
        assert_one_line(raised, url)


@pytest.mark.parametrize("part", ["_versions", "data"])
@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied"])
def test_a_damaged_folder_is_an_error_of_one_line(tmp_path, capsys, part, damage):
    url = str(tmp_path / "damaged")
    store = store_of(url)
    store.create(SETTINGS, width=WIDTH)
    store.replace({name: video([padded(1), padded(2)]) for name in NAMES})
    for file in (tmp_path / "damaged" / "moments.lance" / part).iterdir():
        if damage == "deleted":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 if damage == "cut" else 0])
    for act in (lambda s: s.rows(NAMES[0]), lambda s: s.videos(), lambda s: s.replace({"x": video([padded(1)])})):
        with pytest.raises(ValueError) as raised:
            act(store_of(url))
        assert_one_line(raised, url)
    if part == "_versions":
        assert main(["search", url, "onions"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "rest",
    ["http://host:19530/", "http://host:19530/a/b", "http://host/a-b", "http://user:word@host/name", "ftp://host/name"],
)
def test_a_url_of_milvus_has_a_host_and_a_name(rest):
    with pytest.raises(ValueError, match="expected milvus\\+http://host:19530/name") as raised:
        store_of(f"milvus+{rest}")
    assert_one_line(raised, f"milvus+{rest}")


@pytest.mark.parametrize("kind", ["closed", "hung"])
def test_a_milvus_server_that_does_not_answer_is_an_error_of_one_line(kind, caplog, capfd):
    """Nobody listens, or somebody does and says nothing."""
    listener = listening()
    url = f"milvus+http://127.0.0.1:{listener.getsockname()[1]}/name"
    if kind == "closed":
        listener.close()
    with pytest.raises(ValueError, match="the server does not answer") as raised:
        Collection.open(url)
    assert_one_line(raised, url)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_milvus_server_that_goes_away_is_found_again(milvus_port, caplog, capfd):
    listener = listening()
    forwarder = Forwarder(milvus_port, listener)
    store = store_of(f"milvus+http://127.0.0.1:{forwarder.port}/c{uuid4().hex}")
    store.create(SETTINGS, width=WIDTH)
    store.replace({"a.mp4": video([padded(1)])})
    forwarder.close()
    for act in (
        lambda: store.replace({"b.mp4": video([padded(1)])}),
        lambda: store.nearest(np.ones(WIDTH, np.float32), 1, EVERYWHERE),
        lambda: store.rows("a.mp4"),
        store.videos,
        store.exists,
    ):
        with pytest.raises(ValueError, match="the server does not answer") as raised:
            act()
        assert_one_line(raised, store.url)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    back = Forwarder(milvus_port, listening(forwarder.port))
    wait_until(lambda: listed(store) == ["a.mp4"], "the server to be found", seconds=60)  # gRPC waits between attempts
    back.close()


def listed(store):
    try:
        return list(store.videos())
    except ValueError:
        return None


@pytest.mark.slow
def test_a_half_written_video_in_milvus_is_not_listed_and_is_repaired(milvus_port, monkeypatch):
    """The process is killed at each of the writes of `replace`."""
    store = store_of(f"milvus+http://127.0.0.1:{milvus_port}/c{uuid4().hex}")
    store.create(SETTINGS, width=WIDTH)
    whole = video([padded(2)] * 3)
    for name, number in (("_delete", 2), ("_upsert", 1), ("_upsert", 2)):
        store.replace({"a.mp4": video([padded(1)] * 5)})
        calls, write = [], getattr(store, name)

        def killed(rows, calls=calls, write=write, number=number):
            calls.append(rows)
            if len(calls) == number:
                raise KeyboardInterrupt
            write(rows)

        with monkeypatch.context() as patch:
            patch.setattr(store, name, killed)
            with pytest.raises(KeyboardInterrupt):
                store.replace({"a.mp4": whole})
        assert store.videos() == {}
        store.replace({"a.mp4": whole})
        assert store.videos() == {"a.mp4": whole[0]}
        assert_equal_windows(store.rows("a.mp4"), whole[1])
