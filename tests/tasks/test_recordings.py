"""Every end task against the original's outputs on its own annotation files: raw scores, then metrics."""

import numpy as np
import pytest
import torch

from mmpt_plugin.corpora.segments import frame_labels, steps_shown
from mmpt_plugin.metrics.localization import ordered_steps
from mmpt_plugin.metrics.moments import MOMENTS
from mmpt_plugin.models import VideoCLIPSegmenter
from mmpt_plugin.models.segmenter import VideoCLIPSegmenterConfig
from mmpt_plugin.tasks.segmentation import labels_of, threshold
from tests.conftest import TINY_MODEL
from tests.tasks.golden import ARRAYS, ENDTASK, METRICS, approx, close, mixed, released, task

COIN = {"allow_missing": True, "allow_overlap": True}


@pytest.fixture(scope="module")
def model():
    return released()


@pytest.fixture(scope="module")
def msrvtt():
    return task("text_video_retrieval", "msrvtt", "msrvtt/MSRVTT_JSFUSION_test.csv")


@pytest.fixture(scope="module")
def crosstask():
    return task("step_localization", "crosstask", "crosstask/crosstask_release", num_train=3)


def scores(embeddings):
    return embeddings.text @ embeddings.video.T


def equal_retrieval(result, recorded):
    ours = result["metrics"]
    expected = [recorded["R1"], recorded["R5"], recorded["R10"], recorded["MR"]]
    assert [ours[f"t2v_{key}"] for key in ("recall@1", "recall@5", "recall@10", "median_rank")] == approx(expected)


def test_msrvtt_retrieval(model, msrvtt):
    close(scores(msrvtt.embed(model)), ARRAYS["vtt_scores"])
    equal_retrieval(msrvtt.evaluate(model), METRICS["test_vtt_zs"]["metrics"])


@pytest.mark.parametrize("clips", ["youcook_val.pkl", "youcook_val_as_json.json"])
def test_youcook2_retrieval(model, clips):
    """The original's list names a clip whose video is missing, and which it drops."""
    youcook2 = task(
        "text_video_retrieval",
        "youcook2",
        "youcook2/youcookii_annotations_trainval.json",
        clips=str(ENDTASK / "youcook2" / clips),
        allow_missing=True,
    )
    assert youcook2.dataset.missing_videos == ["missing"]
    close(scores(youcook2.embed(model)), ARRAYS["youcook_scores"])
    equal_retrieval(youcook2.evaluate(model), METRICS["test_youcook_zs"]["metrics"])


def test_msrvtt_multiple_choice(model):
    qa = task("multiple_choice_qa", "msrvtt_multiple_choice", "msrvtt/MSR_MC_test.csv")
    np.testing.assert_array_equal(qa.scores(model).argmax(axis=1), ARRAYS["qa_pred"])
    assert qa.evaluate(model)["metrics"]["accuracy"] == approx(METRICS["test_vttqa_zs"]["metrics"]["acc"])


@pytest.mark.parametrize(("name", "weights"), [("coinzs", released), ("coinzsmix", mixed)])
def test_coin_segmentation(name, weights):
    """Where all scores are below the threshold, and where they fall on both sides of it.

    One recorded score lies 2e-7 from its threshold, so its side is a matter of rounding.
    """
    coin, model = task("action_segmentation", "coin", "coin/COIN.json", **COIN), weights()
    labels = coin.encode_labels(model)
    close(labels, ARRAYS[f"{name}_label_hidden"])
    close(threshold(labels), ARRAYS[f"{name}_threshold"])
    logits = list(coin.scores(model, labels))
    assert [len(one) for one in logits] == ARRAYS["coinzs_lengths"].tolist()
    close(np.concatenate(logits), ARRAYS[f"{name}_logits"])
    predicted = np.concatenate([labels_of(one, threshold(labels)) for one in logits])
    recorded, limit = ARRAYS[f"{name}_logits"], float(ARRAYS[f"{name}_threshold"])
    np.testing.assert_array_equal(labels_of(recorded, limit), ARRAYS[f"{name}_pred"])
    clear = np.abs(recorded.max(axis=1) - limit) > 1e-5
    assert clear.sum() >= len(clear) - 1
    np.testing.assert_array_equal(predicted[clear], ARRAYS[f"{name}_pred"][clear])
    true = [frame_labels(video.segments, len(one)) for video, one in zip(coin.dataset.videos, logits, strict=True)]
    np.testing.assert_array_equal(np.concatenate(true), ARRAYS["coinzs_true"])
    accuracy = METRICS[{"coinzs": "test_coin_zs", "coinzsmix": "test_coin_zs_mixed"}[name]]["metrics"]["frame_acc"]
    unclear = (~clear).mean() + 1e-9
    assert coin.evaluate(model)["metrics"]["frame_accuracy"] == pytest.approx(accuracy, abs=unclear)


def test_a_classifier_wider_than_the_labels_is_scored():
    """As the original scores one of 779; a label without a name is wrong."""
    torch.manual_seed(0)
    coin = task("action_segmentation", "coin", "coin/COIN.json", **COIN)
    wide = VideoCLIPSegmenter(VideoCLIPSegmenterConfig(**TINY_MODEL, num_labels=900)).eval()
    wide.video_encoder.classifier.bias.data[801] = 1000.0
    result = coin.evaluate(wide)
    assert result["metrics"]["frame_accuracy"] == 0
    assert {label for *_, label in result["examples"][0]["segments"]["predicted"]} == {"label 801"}


def test_windows_are_the_same_in_any_batches(model):
    one, many = (
        task("action_segmentation", "coin", "coin/COIN.json", options={"eval_chunk_size": size}, **COIN)
        for size in (1, 64)
    )
    labels = one.encode_labels(model)
    for a, b in zip(one.scores(model, labels), many.scores(model, labels), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_seconds_that_attend_to_cls_are_not_the_recorded_ones(model):
    """The original hides [CLS]; what the option does shows in the scores."""
    coin = task("action_segmentation", "coin", "coin/COIN.json", options={"hide_cls": False}, **COIN)
    ours = np.concatenate(list(coin.scores(model, coin.encode_labels(model))))
    assert np.abs(ours - ARRAYS["coinzs_logits"]).max() > 0.01


def test_crosstask_split_and_alignments(model, crosstask):
    names = [f"{video.group}/{video.video_id}" for video in crosstask.dataset.videos]
    assert names == ARRAYS["ct_order"].tolist()
    for i, (video, own) in enumerate(zip(crosstask.dataset.videos, crosstask.costs(model), strict=True)):
        close(own, ARRAYS[f"ct_cost{i}"])
        np.testing.assert_array_equal(ordered_steps(own), ARRAYS[f"ct_frames{i}"])
        shown = steps_shown(video.segments, *own.shape)
        np.testing.assert_array_equal(shown, ARRAYS[f"ct_true_{video.group}_{video.video_id}"])


def test_crosstask_recall(model, crosstask):
    result = crosstask.evaluate(model)
    assert result["metrics"]["average_recall"] == approx(METRICS["test_crosstask_zs_videoclip"]["metrics"]["recall"])
    assert 0 < result["chance"]["average_recall"] < 1


@pytest.mark.parametrize("eval_chunk_size", [1, 64])
def test_didemo_rankings_and_metrics(model, eval_chunk_size):
    """Padding counts in a moment's mean, so a short video alone is padded as it is in a batch."""
    options = {"eval_chunk_size": eval_chunk_size}
    didemo = task("moment_localization", "didemo_moments", "didemo/test_data.json", options=options)
    recorded = METRICS["test_didemo_zs"]
    for scores, possible, ranked in zip(*didemo.scores(model), recorded["ranked_segments"], strict=True):
        assert MOMENTS[[i for i in np.argsort(-scores) if possible[i]]].tolist() == ranked
    metrics = recorded["metrics"]
    expected = {"rank@1": metrics["rank1"], "rank@5": metrics["rank5"], "miou": metrics["miou"]}
    assert didemo.evaluate(model)["metrics"] == approx(expected)


def test_a_model_that_sees_too_little_is_refused(model):
    small = released()
    small.config.max_video_len = 20
    with pytest.raises(ValueError, match="moment localization needs 30 s of video, but model.max_video_len is 20 s"):
        task("moment_localization", "didemo_moments", "didemo/test_data.json").evaluate(small)
    with pytest.raises(ValueError, match=r"task.window is 32 s, but model.max_video_len is 20 s"):
        task("action_segmentation", "coin", "coin/COIN.json", **COIN).evaluate(small)


def test_the_recordings_are_small():
    assert sum(path.stat().st_size for path in ENDTASK.rglob("*") if path.is_file()) < 2 * 2**20
    assert torch.load(ENDTASK / "coin_mixed_layer_norm.pt", weights_only=True).keys() <= released().state_dict().keys()


def test_captions_are_cut_to_61_word_pieces(model, msrvtt):
    """The vocabulary has every letter, so each of these is a word piece."""
    long, cut = (" ".join("ab"[i % 2] for i in range(number)) for number in (100, 61))
    vectors = msrvtt.encode_texts(model, [long, cut, cut[:-2]])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-3
