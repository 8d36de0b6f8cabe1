"""Multiple choice: the share of questions whose right option scores highest. Q questions, O options."""

import numpy as np
from jaxtyping import Float, Int


def multiple_choice(scores: Float[np.ndarray, "Q O"], answers: Int[np.ndarray, " Q"]) -> dict[str, float]:
    return {"accuracy": float((scores.argmax(axis=1) == answers).mean())}
