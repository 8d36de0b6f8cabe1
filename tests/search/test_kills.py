"""A killed `mmpt index` leaves whole videos, and two at once lose nothing."""

import pytest

from tests.search.kills import SECONDS, contents, go, kill_after_commits, prepare


@pytest.mark.slow
def test_a_killed_run_leaves_whole_videos_and_the_next_run_adds_the_others(tmp_path):
    """One commit creates the collection, and each of the others adds a video."""
    setting = prepare(tmp_path)
    for commits in (1, 2, 5, 9):
        killed = kill_after_commits(setting, str(tmp_path / f"killed_{commits}"), commits)
        assert killed.num_videos is not None
        assert killed.num_videos >= commits - 1


@pytest.mark.slow
def test_two_runs_at_once_give_one_collection(tmp_path):
    """Both create it and add all videos: the second replaces what the first wrote."""
    setting = prepare(tmp_path)
    url = str(tmp_path / "together")
    processes = [setting.start(url) for _ in range(2)]
    for process in processes:
        go(process)
    outputs = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert contents(url) == setting.contents
