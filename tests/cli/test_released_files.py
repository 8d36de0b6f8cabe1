"""From a released file to vectors and to a result, on the command line."""

import json
import string

import pytest
import torch
from safetensors.torch import load_file

from mmpt_plugin.models import load_model
from tests.conftest import run
from tests.models.released import GOLDEN
from tests.models.test_released import checkpoint, write


@pytest.fixture
def vocabulary(tmp_path):
    """CLIP's two files, with 18 letters alone: 38 ids, which even the smallest recorded model has."""
    letters = string.ascii_lowercase[:18]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip2video/K5/full", "archive"])
def test_a_released_file_is_converted_then_embeds_and_is_evaluated(kitchen, tmp_path, vocabulary, name):
    """The original file gives the same result as the folder, and both read the frames that the authors' code reads."""
    archive = GOLDEN / "openai_clip" / "archive.pt"
    path = archive if name == "archive" else write(tmp_path, checkpoint(name))
    done = run("mmpt", "convert", path, "--out", tmp_path / "model", "--tokenizer", vocabulary)
    assert "with its tokenizer" in done.stdout
    videos = sorted((kitchen.root / "videos").glob("*.mp4"))[:3]
    run("mmpt", "embed", tmp_path / "model", *videos, "--out", tmp_path / "videos.safetensors")
    (tmp_path / "text.txt").write_text("a man chops an onion\nhe folds a cap\n")
    run("mmpt", "embed", tmp_path / "model", "--text", tmp_path / "text.txt", "--out", tmp_path / "text.safetensors")
    model = load_model(tmp_path / "model")
    vectors = load_file(tmp_path / "videos.safetensors")["vectors"]
    torch.testing.assert_close(vectors, model.embed_videos(videos))
    assert load_file(tmp_path / "text.safetensors")["vectors"].shape == (2, model.config.hidden_size)

    clips = [
        {"video_id": v.stem, "start": 0, "end": 6, "caption": f"a {c}"} for v, c in zip(videos, "abc", strict=True)
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    made = {"annotations": tmp_path / "clips.jsonl", "videos": kitchen.root / "videos", "tokenizer": vocabulary}
    data = [f"task.dataset.{key}={value}" for key, value in (made | {"frames": "{}"}).items()]
    results = {}
    for given in (tmp_path / "model", path):
        project = ["clip_mean/evaluate", "task=toy_kitchen_clips", f"checkpoint={given}", *data]
        run("mmpt", "evaluate", *project, "--json", tmp_path / "result.json")
        results[given] = json.loads((tmp_path / "result.json").read_text())
    folder, file = results.values()
    assert folder["num_clips"] == 3
    assert (folder["metrics"], folder["data"]) == (file["metrics"], file["data"])
