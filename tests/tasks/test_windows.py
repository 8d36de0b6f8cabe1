"""Benchmarks of every second: whose settings count, and which models they take."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt_plugin.models import VideoCLIPSegmenter, VideoCLIPSegmenterConfig
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.tokenizer import load_tokenizer
from tests.conftest import TINY_MODEL
from tests.tasks.golden import ENDTASK, released, task

COIN = {"allow_missing": True, "allow_overlap": True}


def coin(**options):
    return task("action_segmentation", "coin", "coin/COIN.json", options=options, **COIN)


@pytest.mark.parametrize("attends", [True, False])
@pytest.mark.parametrize("hide_cls", [True, False])
def test_a_segmenter_is_measured_as_it_was_trained(attends, hide_cls):
    """Whatever the task would have for weights that were not trained on seconds."""
    torch.manual_seed(0)
    sizes = TINY_MODEL | {"feature_dim": 16, "num_labels": 8, "attend_to_cls": attends}
    model = VideoCLIPSegmenter(VideoCLIPSegmenterConfig(**sizes)).eval()
    benchmark = coin(hide_cls=hide_cls, window=8, stride=8)
    dataset = benchmark.dataset
    width = dataset.feature_dim
    model.video_encoder.videomlp.linear1 = torch.nn.Linear(width, 16)
    model.config.feature_dim = width
    (predicted, *_), _ = benchmark.predict(model)
    first = dataset.seconds(dataset.videos[0].video_id, 0, 8)
    logits = model.label_logits(first[None])[0]
    np.testing.assert_array_equal(predicted[:8], logits.argmax(dim=1).numpy())


class Ramp(Embedder):
    """A model of somebody else's: a state a second, and a method of the right name."""

    def __init__(self, width: int) -> None:
        super().__init__(SimpleNamespace(feature_dim=width, max_video_len=32, max_text_len=78))
        self.weight = torch.nn.Parameter(torch.ones(3))

    def encode_video(self, features, mask=None):
        return self.encode_video_steps(features).mean(dim=1)

    def encode_video_steps(self, features, mask=None):
        return features[..., :3] * self.weight

    def encode_text(self, text, mask=None):
        return text[:, 1:2].float().expand(-1, 3)


class WholeClips(Ramp):
    encode_video_steps = None


@pytest.mark.parametrize(
    ("kind", "corpus", "annotations", "options"),
    [
        ("action_segmentation", "coin", "coin/COIN.json", COIN),
        ("step_localization", "crosstask", "crosstask/crosstask_release", {"num_train": 3}),
        ("moment_localization", "didemo_moments", "didemo/test_data.json", {}),
    ],
)
def test_any_model_with_a_state_for_every_second_is_measured(kind, corpus, annotations, options):
    benchmark = task(kind, corpus, annotations, **options)
    model = Ramp(benchmark.dataset.feature_dim)
    assert benchmark.evaluate(model)["metrics"]
    with pytest.raises(ValueError, match="WholeClips only encodes whole clips"):
        benchmark.evaluate(WholeClips(benchmark.dataset.feature_dim))


def test_texts_are_cut_where_the_model_cuts_them():
    """With max_text_len 4 a sentence of ten word pieces has the vector of its first four, as in embed_text."""
    model = released()
    model.config.max_text_len = 4
    msrvtt = task("text_video_retrieval", "msrvtt", "msrvtt/MSRVTT_JSFUSION_test.csv")
    long, cut = "a b a b a b a b a b", "a b a b"
    vectors = msrvtt.encode_texts(model, [long, cut])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    model.tokenizer = load_tokenizer(str(ENDTASK / "tokenizer"))
    np.testing.assert_allclose(model.embed_text([long]).numpy()[0], vectors[0], atol=1e-5)


def test_a_model_reads_texts_with_the_tokenizer_it_came_with(tmp_path):
    """The task's tokenizer, which may be of another model, is for those that came without one."""
    model = released()
    model.tokenizer = load_tokenizer(str(ENDTASK / "tokenizer"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted("ba"), *map(str, range(500))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    msrvtt = task("text_video_retrieval", "msrvtt", "msrvtt/MSRVTT_JSFUSION_test.csv")
    expected = msrvtt.encode_texts(model, ["a b"])
    msrvtt.dataset.config.tokenizer = str(tmp_path)
    np.testing.assert_array_equal(msrvtt.encode_texts(model, ["a b"]), expected)
    model.tokenizer = None
    with pytest.raises(ValueError, match=r"tokenizer .* has \d+ word pieces, but model.vocab_size is \d+: the model"):
        msrvtt.check(model)
