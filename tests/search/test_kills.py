"""A killed `mmpt index` leaves whole videos, and two at once lose nothing."""

from uuid import uuid4

import pytest

from mmpt_plugin.search import Collection
from tests.search.kills import (
    SECONDS,
    collection_of,
    contents,
    go,
    kill_after_commits,
    kill_after_videos,
    prepare,
    wait_for_videos,
)  # fmt: skip
from tests.search.milvus_server import Forwarder, listening


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
def test_a_killed_run_leaves_whole_videos_and_the_next_run_adds_the_others(setting, tmp_path):
    """One commit creates the collection, and each of the others adds a video."""
    for commits in (1, 2, 5, 9):
        assert kill_after_commits(setting, str(tmp_path / f"killed_{commits}"), commits) >= commits - 1


@pytest.mark.slow
def test_two_runs_at_once_give_one_collection(setting, tmp_path):
    """Both create it and add all videos: the second replaces what the first wrote."""
    url = str(tmp_path / "together")
    processes = [setting.start(url) for _ in range(2)]
    for process in processes:
        go(process)
    outputs = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert contents(url) == setting.contents


@pytest.mark.slow
def test_a_run_that_is_killed_or_loses_its_milvus_server_leaves_whole_videos(setting, milvus_port):
    assert kill_after_videos(setting, milvus_url(milvus_port), 4) >= 4

    forwarder = Forwarder(milvus_port)
    url = milvus_url(forwarder.port)
    process = setting.start(url)
    go(process)
    wait_for_videos(process, url, 2)
    forwarder.close()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert [line for line in errors.splitlines() if "indexing" not in line] == [
        f"mmpt index: {url}: the server does not answer"
    ]
    forwarder = Forwarder(milvus_port, listening(forwarder.port))
    kept = Collection.open(url).videos()
    again = collection_of(setting, url).index([setting.videos])
    assert (len(again.added), again.unchanged) == (12 - len(kept), len(kept))
    assert contents(url) == setting.contents
    forwarder.close()


def milvus_url(port):
    return f"milvus+http://127.0.0.1:{port}/c{uuid4().hex}"
