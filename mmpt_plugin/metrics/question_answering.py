"""Multiple-choice question answering: the option with the highest score. Q questions, O options."""

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.ranking import right_rank


def multiple_choice(scores: Float[np.ndarray, "Q O"], answers: Int[np.ndarray, " Q"]) -> dict[str, float]:
    """`accuracy`: the share of questions whose answer scores above every other option."""
    return {"accuracy": float((right_rank(scores, answers) == 1).mean())}


def multiple_choice_chance(num_options: int) -> dict[str, float]:
    """What a guess scores on average."""
    return {"accuracy": 1 / num_options}
