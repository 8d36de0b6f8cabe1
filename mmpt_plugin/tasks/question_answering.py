"""Multiple-choice video question answering.

Q questions with O options each.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mmpt_plugin.corpora.msrvtt import MSRVTTMultipleChoice
from mmpt_plugin.metrics.question_answering import multiple_choice, multiple_choice_chance
from mmpt_plugin.metrics.scores import exact_scores
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import Benchmark, BenchmarkConfig


@dataclass(kw_only=True)
class MultipleChoiceQAConfig(BenchmarkConfig):
    """`dataset` is a corpus of questions, such as `{_name: msrvtt_multiple_choice, ...}`."""


@register_task("multiple_choice_qa", dataclass=MultipleChoiceQAConfig)
class MultipleChoiceQA(Benchmark[MSRVTTMultipleChoice]):
    """Multiple choice: predicts the option with the highest dot product with the video."""

    needs = "questions"

    def evaluate(self, model: Embedder) -> dict[str, Any]:
        """Accuracy, from 0 to 1; chance is a random guess."""
        questions = self.dataset.questions
        metrics = multiple_choice(self.scores(model), np.array([question.answer for question in questions]))
        return self.result(
            {"num_questions": len(questions)}, metrics, multiple_choice_chance(len(questions[0].options))
        )

    def scores(self, model: Embedder) -> Float[np.ndarray, "Q O"]:
        """The dot product of each question's video with its options; all questions have equally many options."""
        questions = self.dataset.questions
        videos = self.encode_whole_videos(model, [question.video_id for question in questions])
        texts = self.encode_texts(model, [option for question in questions for option in question.options])
        return exact_scores(videos[:, None], texts.reshape(len(questions), -1, videos.shape[1]))
