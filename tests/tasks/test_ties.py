"""Tasks that compare a few texts give equal embeddings equal scores: a model that separates nothing finds nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmpt_plugin.models import Embedder
from mmpt_plugin.tasks.classification import ZeroShotClassification
from mmpt_plugin.tasks.moments import MomentLocalization
from mmpt_plugin.tasks.question_answering import MultipleChoiceQA

MODEL = object.__new__(Embedder)  # never asked
SHAPES = [(rows, choices, width) for rows in (1, 2, 7, 23) for choices in (2, 5, 17) for width in (3, 31, 256, 385)]


def made(task, num_rows, width, **parts):
    """A task whose model gives every video one vector, and every text another."""
    rng = np.random.default_rng(width)
    video, text = rng.standard_normal((2, width)).astype(np.float32)
    self = object.__new__(task)
    self.dataset = SimpleNamespace(**parts)
    self.encode_whole_videos = lambda model, ids: np.tile(video, (len(ids), 1))
    self.encode_texts = lambda model, texts: np.tile(text, (len(texts), 1))
    self._encode_moments = lambda model: [(f"{i}", (30, np.tile(video, (21, 1)))) for i in range(num_rows)]
    return self


@pytest.mark.parametrize(("num_rows", "num_choices", "width"), SHAPES)
def test_equal_embeddings_have_equal_scores(num_rows, num_choices, width):
    questions = [SimpleNamespace(video_id="v", options=["a"] * num_choices)] * num_rows
    qa = made(MultipleChoiceQA, num_rows, width, questions=questions)
    videos = [SimpleNamespace(video_id="v")] * num_rows
    classes = made(ZeroShotClassification, num_rows, width, videos=videos, labels=["a"] * num_choices)
    classes.config = SimpleNamespace(prompts=["{label}"])
    described = [SimpleNamespace(video_id=f"{i}", description="d") for i in range(num_rows)]
    moments = made(MomentLocalization, num_rows, width, moments=described)
    for scores, shape in (
        (qa.scores(MODEL), num_choices),
        (classes.scores(MODEL), num_choices),
        (moments.scores(MODEL)[0], 21),
    ):
        assert scores.shape == (num_rows, shape)
        assert len(np.unique(scores)) == 1
