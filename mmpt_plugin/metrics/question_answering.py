"""Multiple-choice question answering from scores. Q questions, O options."""

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.ranking import target_rank


def multiple_choice(scores: Float[np.ndarray, "Q O"], answers: Int[np.ndarray, " Q"]) -> dict[str, float]:
    """`accuracy`: the share of questions whose answer scores higher than every other option."""
    return {"accuracy": float((target_rank(scores, answers) == 1).mean())}


def multiple_choice_chance(num_options: int) -> dict[str, float]:
    """The expected accuracy of a random guess."""
    return {"accuracy": 1 / num_options}
