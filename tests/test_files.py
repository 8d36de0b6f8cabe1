"""Outputs: locked while they are written, replaced as a whole, and failures of writing in one line."""

import errno
import multiprocessing
import pickle

import pytest
import torch
from safetensors.torch import save_file

from mmpt_plugin import files
from mmpt_plugin.files import WriteFailed, atomic_write, replace_folder, replace_text, write_files, writing


def try_to_write(out, shared, replaced, answers):
    try:
        with writing(out, shared=shared, replaced=replaced):
            answers.put("written")
    except ValueError as error:
        answers.put(str(error))


def answer_of_another_process(out, *, shared=False, replaced=False):
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    process = fork.Process(target=try_to_write, args=(out, shared, replaced, answers))
    process.start()
    answer = answers.get(timeout=60)
    process.join()
    return answer


def test_a_text_replaces_a_file_and_what_a_killed_process_has_left(tmp_path):
    path = tmp_path / "pages" / "index.html"
    replace_text(path, "old")
    (tmp_path / "pages" / ".index.html.abc.tmp").mkdir()
    replace_text(path, "caf\udce9 é")  # a file name with a byte that is not UTF-8
    assert path.read_bytes() == b"caf\xe9 \xc3\xa9"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path, replaced):
    out = tmp_path / "out"
    with writing(out, replaced=replaced):
        assert answer_of_another_process(out, replaced=replaced) == (
            f"another process writes to {out}: wait until it has ended, or choose another output"
        )
    assert answer_of_another_process(out, replaced=replaced) == "written"
    assert [path for path in tmp_path.rglob("*") if path != out] == [], "no lock file is left"


def test_several_processes_may_share_an_output_that_only_one_may_clear(tmp_path):
    """What a killed process left goes, but not what another process is writing."""
    with writing(tmp_path, shared=True):
        (tmp_path / ".a.npy.xyz.tmp").mkdir()
        assert answer_of_another_process(tmp_path, shared=True) == "written"
        assert (tmp_path / ".a.npy.xyz.tmp").exists()
        assert "another process" in answer_of_another_process(tmp_path)
    with writing(tmp_path, shared=True):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not any(tmp_path.iterdir())


def test_only_leftovers_of_the_same_output_are_removed_next_to_it(tmp_path):
    for name in (".out.abc.tmp", ".other.abc.tmp"):
        (tmp_path / name).mkdir()
    with writing(tmp_path / "out", replaced=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".other.abc.tmp"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch, exchange):
    if not exchange:  # a flag that no file system knows
        monkeypatch.setattr(files, "EXCHANGE", 1 << 20)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def no_space(path):
    raise OSError(errno.ENOSPC, "No space left on device")


def no_space_in_rust(path):
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def no_space_in_torch(path):
    try:
        no_space(path)
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")  # noqa: B904


@pytest.mark.parametrize("write", [no_space, no_space_in_rust, no_space_in_torch])
def test_a_failed_write_names_its_file_and_leaves_nothing(tmp_path, write):
    for attempt in (lambda: atomic_write(tmp_path / "x.npy", write), lambda: write_files(tmp_path, write)):
        with pytest.raises(WriteFailed, match=f"^{tmp_path}[^ ]* can't be written: no space left on device$") as found:
            attempt()
        assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value), "it may be raised in a worker"
    assert not any(tmp_path.iterdir())


def test_an_error_of_reading_is_not_one_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError) as found:
        atomic_write(tmp_path / "copy", lambda path: (tmp_path / "source").read_bytes())
    assert not isinstance(found.value, WriteFailed)


def test_a_safetensors_file_in_no_folder_is_one_line(tmp_path):
    with pytest.raises(WriteFailed, match="model can't be written: no such file or directory"):
        atomic_write(tmp_path / "gone" / "model", lambda path: save_file({"x": torch.zeros(1)}, path))
