"""What a project leaves out of its model comes from the starting weights, or from the training data."""

import logging

import pytest
import torch
from transformers import BertConfig

from mmpt_plugin import VideoCLIP
from mmpt_plugin.models import VideoCLIPConfig, VideoCLIPSegmenter
from mmpt_plugin.models.segmenter import VideoCLIPSegmenterConfig
from mmpt_plugin.tasks.project import load_training, with_sizes
from tests.conftest import TINY_MODEL

SHARDS = "task.dataset.splits.train={}"


@pytest.fixture
def pretrained(tmp_path):
    """A small VideoCLIP with other settings than the defaults."""
    torch.manual_seed(0)
    config = VideoCLIPConfig(
        **TINY_MODEL, max_video_len=20, max_text_len=30, normalize=True, chunk_size=3, attention="jagged", compile=True
    )
    VideoCLIP(config).save_pretrained(tmp_path / "pretrained")
    return str(tmp_path / "pretrained")


def project(**model):
    return {"model": {"_name": "videoclip", **model}, "task": {}}


def test_the_sizes_of_the_data_are_those_of_the_shards(kitchen):
    made = load_training("videoclip/toy_kitchen", [SHARDS.format(kitchen.shards)])["model"]
    assert (made["feature_dim"], made["vocab_size"], made["hidden_size"]) == (512, 317, 128)


def test_a_size_that_is_given_is_kept(kitchen):
    overrides = [SHARDS.format(kitchen.shards), "model.feature_dim=64"]
    made = load_training("videoclip/toy_kitchen", overrides)["model"]
    assert (made["feature_dim"], made["vocab_size"]) == (64, 317)


def test_without_shards_nothing_is_filled_in(tmp_path):
    made = load_training("videoclip/toy_kitchen", [SHARDS.format(tmp_path)])["model"]
    assert not {"feature_dim", "vocab_size"} & made.keys()


def test_training_from_a_checkpoint_repeats_none_of_its_settings(pretrained):
    made = with_sizes(project(pretrained=pretrained))["model"]
    assert made.items() >= TINY_MODEL.items()
    assert (made["max_video_len"], made["max_text_len"], made["normalize"]) == (20, 30, True)
    assert not {"chunk_size", "attention", "compile"} & made.keys(), "they belong to one training, not to the model"


def test_what_a_project_sets_itself_is_kept(pretrained):
    made = with_sizes(project(pretrained=pretrained, max_video_len=10, dropout=0.2))["model"]
    assert (made["max_video_len"], made["dropout"]) == (10, 0.2)


@pytest.mark.parametrize(("size", "value"), [("hidden_size", 32), ("num_attention_heads", 4), ("cls_token_id", 7)])
def test_a_size_that_contradicts_the_checkpoint_is_one_line(pretrained, size, value):
    with pytest.raises(ValueError, match=f"^model.{size} is {value}, but it is .* in model.pretrained, .*pretrained: "):
        with_sizes(project(pretrained=pretrained, **{size: value}))
    with pytest.raises(ValueError, match=f"leave out model.{size}"):
        with_sizes(project(pretrained=pretrained, **{size: value}), given={"model.pretrained", f"model.{size}"})


def test_weights_of_the_command_line_replace_the_sizes_of_the_yaml(pretrained, kitchen, caplog):
    caplog.set_level(logging.INFO)
    made = load_training("videoclip/toy_kitchen", [SHARDS.format(kitchen.shards), f"model.pretrained={pretrained}"])
    assert made["model"]["hidden_size"] == TINY_MODEL["hidden_size"]
    assert made["model"]["num_attention_heads"] == TINY_MODEL["num_attention_heads"]
    assert "which replace the project's model.hidden_size, model.num_attention_heads" in caplog.text.replace("\n", " ")


def test_a_head_that_the_checkpoint_lacks_is_the_project_s(pretrained, tmp_path):
    segmenter = {"_name": "videoclip_segmenter", "num_labels": 5}
    made = with_sizes({"model": {**segmenter, "pretrained": pretrained}, "task": {}})["model"]
    assert made["num_labels"] == 5
    VideoCLIPSegmenter(VideoCLIPSegmenterConfig(**TINY_MODEL, num_labels=4)).save_pretrained(tmp_path / "segmenter")
    own = {"_name": "videoclip_segmenter", "pretrained": str(tmp_path / "segmenter")}
    assert with_sizes({"model": own, "task": {}})["model"]["num_labels"] == 4


def test_a_bert_brings_its_sizes(tmp_path):
    sizes = {"vocab_size": 99, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48}
    BertConfig(**sizes, max_position_embeddings=70).save_pretrained(tmp_path)
    assert with_sizes(project(bert=str(tmp_path)))["model"].items() >= sizes.items()
    with pytest.raises(ValueError, match="model.hidden_size is 768, but it is 24 in model.bert"):
        with_sizes(project(bert=str(tmp_path), hidden_size=768))


def test_with_a_bert_the_width_of_the_features_is_that_of_the_shards(tmp_path, kitchen):
    BertConfig(vocab_size=400, hidden_size=24, num_attention_heads=3).save_pretrained(tmp_path)
    dataset = {"_name": "overlapped_clips", "splits": {"train": str(kitchen.shards)}}
    made = with_sizes(project(bert=str(tmp_path)) | {"task": {"dataset": dataset}})["model"]
    assert (made["feature_dim"], made["vocab_size"]) == (512, 400)


def test_a_bert_that_is_not_there_yet_is_no_error(tmp_path):
    """A dry run needs no weights."""
    assert with_sizes(project(bert=str(tmp_path / "none")))["model"] == project(bert=str(tmp_path / "none"))["model"]


def test_a_missing_checkpoint_is_named():
    with pytest.raises(ValueError, match="^no checkpoint at /nowhere/model.pt"):
        with_sizes(project(pretrained="/nowhere/model.pt"))
