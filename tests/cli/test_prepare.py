"""`mmpt prepare`: one command from videos with subtitles to a project that trains, with no size written by hand."""

import shlex
import shutil

import pytest
import yaml

from mmpt_plugin import VideoCLIP
from mmpt_plugin.cli import main
from mmpt_plugin.cli.prepare import split_videos
from mmpt_plugin.models import VideoCLIPConfig
from mmpt_plugin.shards.format import Shards
from mmpt_plugin.tasks.preflight import problems
from mmpt_plugin.tasks.project import load_training
from tests.conftest import TINY_MODEL, run

ENCODER = "{_name: s3d, size: 32, fps: 4}"


@pytest.fixture
def folder(kitchen, tmp_path):
    """Two videos in subfolders, their subtitles next to them, and files that are not videos."""
    for number, place in enumerate(("one", "two/deeper")):
        (tmp_path / "videos" / place).mkdir(parents=True)
        for kind, suffix in (("videos", "mp4"), ("captions", "vtt")):
            shutil.copy(kitchen.root / kind / f"toy_000{number}.{suffix}", tmp_path / "videos" / place)
    (tmp_path / "videos" / "notes.txt").write_text("nothing")
    return tmp_path / "videos"


def prepare(folder, *options):
    return main(["prepare", str(folder), "--out", str(folder.parent / "out"), *map(str, options)])


def test_a_folder_of_videos_becomes_a_project_that_can_be_trained(folder, kitchen, capsys):
    tokenizer = kitchen.root / "tokenizer"
    assert prepare(folder, "--encoder", ENCODER, "--tokenizer", tokenizer) == 0
    out = folder.parent / "out"
    assert sorted(Shards(out / "shards" / "train").video_ids) == ["toy_0000", "toy_0001"]
    project = load_training(str(out / "project.yaml"))
    assert list(problems(project)) == []
    model = project["model"]
    assert (model["feature_dim"], model["vocab_size"], project["sampler"]["cluster_size"]) == (512, 317, 2)
    written = (out / "project.yaml").read_text()
    assert "512" not in written
    assert "317" not in written
    said = capsys.readouterr().out
    assert f"mmpt train {out}/project.yaml" in said
    assert f'--tokenizer {tokenizer} --encoder \'{{"_name": "s3d", "size": 32, "fps": 4}}\'' in said
    assert "notes.txt" in said
    assert ".vtt" not in said, "subtitles are used, not left out"


def test_a_project_that_was_edited_is_kept(folder, kitchen, capsys):
    words = ["--encoder", ENCODER, "--tokenizer", kitchen.root / "tokenizer"]
    prepare(folder, *words)
    path = folder.parent / "out" / "project.yaml"
    path.write_text("mine")
    (path.parent / ".project.yaml.killed.tmp").mkdir()
    assert prepare(folder, *words) == 0
    assert path.read_text() == "mine"
    assert f"kept {path}" in capsys.readouterr().out
    assert not [left for left in path.parent.iterdir() if left.name.startswith(".")], "what a killed run left"


def test_a_model_is_trained_further_with_its_own_encoder_tokenizer_and_sizes(folder, kitchen):
    model = VideoCLIP(VideoCLIPConfig(**TINY_MODEL, normalize=True))
    model.encoder = yaml.safe_load(ENCODER)
    model.save_pretrained(folder.parent / "model")
    shutil.copytree(kitchen.root / "tokenizer", folder.parent / "model", dirs_exist_ok=True)
    assert prepare(folder, "--model", folder.parent / "model") == 0
    path = folder.parent / "out" / "project.yaml"
    assert not yaml.safe_load(path.read_text())["model"].keys() & TINY_MODEL.keys()
    project = load_training(str(path))
    assert list(problems(project)) == []
    assert project["model"]["hidden_size"] == TINY_MODEL["hidden_size"]
    assert project["criterion"]["temperature"] == 0.07, "the model's vectors have unit length"


def test_a_model_without_its_encoder_is_one_line(folder, kitchen, capsys):
    VideoCLIP(VideoCLIPConfig(**TINY_MODEL)).save_pretrained(folder.parent / "model")
    assert prepare(folder, "--model", folder.parent / "model") == 2
    assert "was saved without its encoder: add --encoder and --tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("allowed", [False, True])
def test_a_video_without_subtitles_is_found_before_anything_is_extracted(folder, kitchen, capsys, allowed):
    (folder / "one" / "toy_0000.vtt").unlink()
    words = ["--encoder", ENCODER, "--tokenizer", kitchen.root / "tokenizer"]
    assert prepare(folder, *words, *["--allow-missing"] * allowed) == (0 if allowed else 2)
    said, out = capsys.readouterr(), folder.parent / "out"
    reason = f"no toy_0000 with .vtt or .srt or .jsonl in {folder}"
    if allowed:
        assert f"skipped toy_0000: {reason}" in said.out
        assert Shards(out / "shards" / "train").video_ids == ["toy_0001"]
        assert not (out / "features" / "toy_0000.npy").exists()
    else:
        assert said.err == (
            f"mmpt prepare: 1 of 2 videos have no captions: {reason}. To skip these videos: --allow-missing\n"
        )
        assert not out.exists()


def test_a_tokenizer_that_is_not_there_is_found_before_anything_is_extracted(folder, capsys):
    assert prepare(folder, "--tokenizer", "/nowhere") == 2
    assert "no tokenizer at '/nowhere'" in capsys.readouterr().err
    assert not (folder.parent / "out").exists()


def test_a_share_of_the_videos_is_held_out_and_stays_the_same():
    ids = [f"v{number}" for number in range(25)]
    splits = split_videos(ids, 0.1)
    assert len(splits["valid"]) == 2
    assert sorted(splits["train"] + splits["valid"]) == sorted(ids)
    assert set(split_videos(ids[::-1], 0.1)["valid"]) == set(splits["valid"]), "in any order"
    assert split_videos(ids[:9], 0.1)["valid"] == []


@pytest.mark.fairseq
@pytest.mark.slow
def test_prepare_train_convert(folder, kitchen):
    """As the commands that it prints say, from two videos to a model; then the model is trained further."""
    pytest.importorskip("fairseq")
    out = folder.parent / "out"
    words = ["--out", out, "--encoder", ENCODER, "--tokenizer", kitchen.root / "tokenizer"]
    run("mmpt", "prepare", folder, *words)
    run("mmpt", "train", out / "project.yaml", "optimization.max_epoch=1")
    convert = next(line for line in (out / "project.yaml").read_text().splitlines() if "mmpt convert" in line)
    run(*shlex.split(convert.lstrip("# ")))
    run("mmpt", "prepare", folder, "--model", out / "model", "--out", folder.parent / "further")
    run("mmpt", "train", folder.parent / "further" / "project.yaml", "optimization.max_epoch=1")
    further = VideoCLIP.from_pretrained(folder.parent / "further" / "run" / "checkpoint_last.pt")
    assert further.config == VideoCLIP.from_pretrained(out / "model").config
