"""The command line: what it teaches, and what it says of bad input, each in one line with exit status 2."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.cli import main, parse
from mmpt_plugin.features.files import write_features
from mmpt_plugin.shards.writer import ShardWriter
from tests.conftest import TINY_MODEL, run


def refused(capsys, *words) -> str:
    """The one line that a command prints on stderr when it exits with 2."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmpt ")]
    assert len(lines) == 1
    return lines[0]


def train(shards, save_dir, *overrides):
    words = [f"model.{key}={value}" for key, value in TINY_MODEL.items()]
    return [
        "train", "videoclip/toy_kitchen", *words, f"task.dataset.splits.train={shards}", "dataset.num_workers=0",
        f"checkpoint.save_dir={save_dir}", "common.log_file=null", "sampler.cluster_size=3",
        "sampler.num_neighbors=6", *overrides,
    ]  # fmt: skip


def test_the_real_command_exists_and_its_help_teaches():
    shown = run("mmpt", "--help").stdout
    for word in ("list", "extract", "shard", "train", "evaluate", "doctor", "a first run"):
        assert word in shown


def test_list_names_what_is_registered_and_what_there_is(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "videoclip",
        "nce",
        "retrieval_augmented",
        "overlapped_clips",
        "s3d",
        "toy_kitchen",
        "videoclip/pretrain",
    ):
        assert word in shown


def test_a_reader_that_has_seen_enough_is_not_an_error():
    done = run(
        "bash", "-c", "set -o pipefail; mmpt list | head -c 10", PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin"
    )
    assert (done.stdout, done.stderr) == ("models    ", "")


def test_doctor_says_what_runs_here(capsys):
    assert main(["doctor"]) == 0
    assert "ok  decode videos: av" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model._name=videoclp", "no model 'videoclp'. Did you mean 'videoclip'?"),
        ("sampler._name=retrieval_augmente", "Did you mean 'retrieval_augmented'?"),
        ("model.hidden_siz=3", "no key 'videoclip.hidden_siz'. Did you mean 'hidden_size'?"),
        ("optimizaton.lr=3", "no section 'optimizaton'. Did you mean 'optimization'?"),
        ("common.log_intervall=3", "no key 'common.log_intervall'. Did you mean 'log_interval'?"),
        ("task.dataset.pairs=3", "no key 'overlapped_clips.pairs'"),
        ("model.hidden_size=wide", "videoclip.hidden_size: Value 'wide'"),
        ("task=toy_kichen", "no task YAML 'toy_kichen'. Did you mean 'toy_kitchen'?"),
        ("nonsense", "override 'nonsense' is not of the form key=value"),
        ("lr=1e-3", "'lr' must be a section, as in lr.key=value, got 0.001"),
        ("optimization.lr=fast", "optimization.lr must be a number or a list such as [1e-4], got 'fast'"),
        ("sampler=uniform", "'sampler' must be a section"),
        ("criterion.l2_normalize=true", "nce.l2_normalize was removed: set model.normalize instead"),
    ],
)
@pytest.mark.fairseq
def test_a_project_with_a_mistake_is_refused(capsys, tmp_path, override, message):
    pytest.importorskip("fairseq")
    assert message in refused(
        capsys, "train", "videoclip/toy_kitchen", f"checkpoint.save_dir={tmp_path / 'run'}", override
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_project_is_refused(capsys):
    assert "no project 'videoclip/pretrian'. Did you mean 'videoclip/pretrain'?" in refused(
        capsys, "train", "videoclip/pretrian"
    )


def test_broken_yaml_is_refused(capsys, tmp_path):
    (tmp_path / "p.yaml").write_text("model: {_name: [")
    assert "p.yaml" in refused(capsys, "train", tmp_path / "p.yaml")


def test_a_missing_checkpoint_is_refused(capsys, tmp_path):
    line = refused(capsys, "evaluate", "videoclip/zeroshot", f"checkpoint={tmp_path / 'none.pt'}")
    assert "none.pt" in line or "test_clips.jsonl" in line


def test_an_evaluation_with_an_unknown_section_is_refused(capsys):
    assert "does not use section ['chekpoint']" in refused(
        capsys, "evaluate", "videoclip/zeroshot", "chekpoint=x", "checkpoint=y"
    )


def test_videos_that_cannot_be_decoded_are_named_and_counted(capsys, tmp_path, kitchen):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "good.mp4").write_bytes((kitchen.root / "videos" / "toy_0000.mp4").read_bytes())
    (tmp_path / "videos" / "text.mp4").write_text("not a video")
    words = ["extract", tmp_path / "videos", "--encoder", "{_name: s3d, size: 32, fps: 4}", "--out", tmp_path / "out"]
    assert main([*map(str, words)]) == 2
    first, *reasons = capsys.readouterr().err.splitlines()[-2:]
    assert "mmpt extract: 1 of 2 videos failed" in first
    assert "text.mp4 can't be decoded" in reasons[0]
    assert not (tmp_path / "out" / "text.npy").exists()
    assert main([*map(str, words), "--allow-missing"]) == 0
    assert "1 of 2 videos failed" in capsys.readouterr().out


def test_an_unknown_encoder_is_refused(capsys, tmp_path, kitchen):
    words = ["extract", kitchen.root / "videos", "--encoder", "s3", "--out", tmp_path / "out"]
    assert "no encoder 's3'. Did you mean 's3d'?" in refused(capsys, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("captions", "features", "message"),
    [
        ([(5, 6), (1, 2)], np.ones((10, 4)), "out of order"),
        ([(-2, 2)], np.ones((10, 4)), "negative"),
        ([(1, 30)], np.ones((10, 4)), "the video has only 10 s"),
        ([(1, 2)], np.full((10, 4), np.nan), "contain NaN or infinity"),
    ],
)
def test_bad_captions_and_features_are_named(capsys, tmp_path, kitchen, captions, features, message):
    for folder in ("features", "captions"):
        (tmp_path / folder).mkdir()
    write_features(tmp_path / "features" / "v.npy", features.astype(np.float16))
    lines = [json.dumps({"start": a, "end": b, "text": "chop the tomato"}) for a, b in captions]
    (tmp_path / "captions" / "v.jsonl").write_text("\n".join(lines))
    (tmp_path / "list.txt").write_text("v\n")
    line = refused(
        capsys, "shard", "--videos", tmp_path / "list.txt", "--features", tmp_path / "features", "--captions",
        tmp_path / "captions", "--tokenizer", kitchen.root / "tokenizer", "--out", tmp_path / "shards",
    )  # fmt: skip
    assert message in line
    assert "v" in line
    assert {p.name for p in tmp_path.iterdir()} == {"features", "captions", "list.txt"}


@pytest.mark.fairseq
class TestTraining:
    """Mistakes that only the data shows; fairseq is running by then."""

    def test_a_shard_with_a_wrong_checksum_is_named(self, capsys, tmp_path, kitchen):
        pytest.importorskip("fairseq")
        content = bytearray((kitchen.shards / "shard-00000.safetensors").read_bytes())
        content[-1] ^= 1
        (tmp_path / "shards").mkdir()
        (tmp_path / "shards" / "index.json").write_bytes((kitchen.shards / "index.json").read_bytes())
        (tmp_path / "shards" / "shard-00000.safetensors").write_bytes(content)
        line = refused(capsys, *train(tmp_path / "shards", tmp_path / "run"))
        assert "shard-00000.safetensors is damaged" in line

    def test_features_of_another_width_than_the_models_are_named(self, capsys, tmp_path, kitchen):
        pytest.importorskip("fairseq")
        line = refused(capsys, *train(kitchen.shards, tmp_path / "run", "model.feature_dim=1024"))
        assert "width 512, but the model expects features of width 1024" in line

    def test_fewer_videos_than_a_batch_needs_are_refused(self, capsys, tmp_path, kitchen):
        pytest.importorskip("fairseq")
        line = refused(capsys, *train(kitchen.shards, tmp_path / "run", "sampler.num_neighbors=64"))
        assert "sampler.num_neighbors is 64, but the split has only 12 videos" in line

    def test_a_split_without_shards_is_named(self, capsys, tmp_path):
        pytest.importorskip("fairseq")
        line = refused(capsys, *train(tmp_path / "nowhere", tmp_path / "run"))
        assert "no shards in" in line


def test_an_empty_split_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="no videos for the shards"),
        ShardWriter(tmp_path / "s", feature_dim=4, encoder="x", tokenizer={"cls_id": 2, "sep_id": 3, "pad_id": 0}),
    ):
        pass


@pytest.mark.slow
@pytest.mark.fairseq
def test_without_fairseq_all_but_training_works(tmp_path, kitchen):
    """A Python in which fairseq can't be imported."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['fairseq'] = sys.modules['fairseq_cli'] = None\n")
    environment = {"PYTHONPATH": str(site)}
    assert "videoclip" in run("mmpt", "list", **environment).stdout
    assert "no fairseq" in run("mmpt", "doctor", **environment).stdout
    done = run("mmpt", "train", "videoclip/toy_kitchen", check=False, **environment)
    assert done.returncode == 2
    assert "mmpt train: training needs fairseq" in done.stderr.splitlines()[-1]
    extract = ["extract", kitchen.root / "videos" / "toy_0000.mp4", "--encoder", "{_name: s3d, size: 32, fps: 4}"]
    run("mmpt", *extract, "--out", tmp_path / "features", **environment)
    assert (tmp_path / "features" / "toy_0000.npy").is_file()


def test_jobs_without_submitit_name_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    for name in [name for name in sys.modules if name.startswith("mmpt_plugin.launch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("mmpt_plugin.launch", raising=False)
    assert "jobs need submitit: pip install 'mmpt_plugin[slurm]'" in refused(capsys, "jobs")


def test_a_report_without_metrics_says_what_writes_them(capsys, tmp_path):
    message = refused(capsys, "report", tmp_path, "--videos", tmp_path)
    assert f"no {tmp_path}/metrics.json: write it with mmpt evaluate" in message
    (tmp_path / "metrics.json").write_text("{")
    assert "metrics.json: not valid JSON" in refused(capsys, "report", tmp_path, "--videos", tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    assert f"no {tmp_path}/train.log: train with" in refused(capsys, "report", tmp_path, "--videos", tmp_path)
    assert "--videos FOLDER is missing" in refused(capsys, "report", tmp_path)
    assert f"no run {tmp_path}/none" in refused(capsys, "report", tmp_path / "none", "--videos", tmp_path)
    assert "--out is for the page that compares" in refused(capsys, "report", tmp_path, "--out", "x.html")


def test_several_runs_are_compared_in_one_page(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "project.yaml").write_text(f"model: {{_name: {name}}}\n")
        (tmp_path / name / "train.log").write_text('{"epoch": 1, "loss": "2.5", "num_updates": "5"}\n')
    assert main(["report", "a", "b"]) == 0
    assert capsys.readouterr().out == "wrote comparison.html\n"
    assert "<td>model._name</td><td>a</td><td>b</td>" in (tmp_path / "comparison.html").read_text()
    assert main(["report", "a", "--out", "pages/x.html", "b", "c"]) == 0
    assert "<h1>3 runs</h1>" in (tmp_path / "pages" / "x.html").read_text()
    assert "--videos is for the page of one run" in refused(capsys, "report", "a", "b", "--videos", tmp_path)
    assert "no run d" in refused(capsys, "report", "a", "d")
    assert "pages is not the folder of a run" in refused(capsys, "report", "a", "pages")
    (tmp_path / "b" / "train.log").unlink()
    assert "no b/train.log" in refused(capsys, "report", "a", "b")


def test_videos_may_follow_the_options():
    """argparse alone gives all that follows an option to the next command."""
    arguments = parse(["embed", "model", "--out", "v.safetensors", "a.mp4", "b.mp4"])
    assert arguments.videos == [Path("a.mp4"), Path("b.mp4")]
