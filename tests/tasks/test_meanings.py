"""What clips mean: the oracles by hand, and as an embedding that knows the same scores."""

import numpy as np
import pytest

from mmpt_plugin.corpora.corpus import AnnotatedClip
from mmpt_plugin.metrics.retrieval import ranks, retrieval_metrics
from mmpt_plugin.tasks.meanings import Meanings

PAIRS = ["chop tomato", "chop tomato", "chop onion", "fry onion"]


def clips(pairs):
    for number, pair in enumerate(pairs):
        action, ingredient = pair.split()
        yield AnnotatedClip(f"v{number}", 0.0, 4.0, pair, {"action": action, "ingredient": ingredient})


@pytest.fixture
def meanings():
    """The second clip has two captions."""
    return Meanings(list(clips(PAIRS)), np.array([0, 1, 1, 2, 3]))


def test_each_part_and_all_together_are_oracles(meanings):
    assert list(meanings.oracles()) == ["action", "ingredient", "action and ingredient"]


def test_a_meaning_of_one_part_has_one_oracle():
    one = [AnnotatedClip("v", float(start), start + 1.0, "x", {"meaning": "chop"}) for start in range(3)]
    oracles = Meanings(one, np.arange(3)).oracles()
    assert list(oracles) == ["meaning"]
    assert oracles["meaning"]["t2v_recall@1"] == pytest.approx(1 / 3)
    assert oracles["meaning"]["t2v_meaning_recall@1"] == 1


def test_oracles_by_hand(meanings):
    """Captions of clips 0, 1, 1, 2, 3. Chopping is in three clips and frying in one; both ingredients are in two."""
    oracles = meanings.oracles()
    assert oracles["action"]["t2v_recall@1"] == pytest.approx((4 * 1 / 3 + 1) / 5)
    assert oracles["action"]["v2t_recall@1"] == pytest.approx((3 * 1 / 3 + 1) / 4)
    assert oracles["action"]["t2v_mean_rank"] == pytest.approx((4 * 2 + 1) / 5)
    assert oracles["ingredient"]["t2v_recall@1"] == pytest.approx(1 / 2)
    assert oracles["action and ingredient"]["t2v_recall@1"] == pytest.approx((3 * 1 / 2 + 2) / 5)
    assert oracles["action and ingredient"]["t2v_recall@5"] == 1


def test_oracles_by_meaning_by_hand(meanings):
    """Of the chopped, two of three are tomatoes: one of these is first with probability 2/3, or else second."""
    oracles = meanings.oracles()
    assert oracles["action"]["t2v_meaning_recall@1"] == pytest.approx((3 * 2 / 3 + 1 / 3 + 1) / 5)
    assert oracles["ingredient"]["t2v_meaning_recall@1"] == pytest.approx((3 * 1 + 2 * 1 / 2) / 5)
    assert oracles["action and ingredient"]["t2v_meaning_mean_rank"] == 1


def test_chance_by_meaning_by_hand(meanings):
    """Two of four clips are chopped tomatoes, the others are alone."""
    chance = meanings.chance()
    assert chance["t2v_meaning_recall@1"] == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)
    assert chance["v2t_meaning_mean_rank"] == pytest.approx((2 * 5 / 3 + 2 * 5 / 2) / 4)
    assert all("_meaning_" in key for key in chance)


def test_an_oracle_is_what_embeddings_score_that_know_the_same():
    """Clips with the same ingredient are equal but for a little noise, drawn a thousand times."""
    rng = np.random.default_rng(0)
    pairs = [f"{rng.choice(list('abc'))} {rng.choice(list('xyz'))}" for _ in range(24)]
    made = list(clips(pairs))
    meanings = Meanings(made, np.arange(24))
    onehot = np.eye(3)[["xyz".index(clip.meaning["ingredient"]) for clip in made]]
    plain, by_meaning = [], []
    for _ in range(1000):
        video = np.concatenate([onehot, 0.01 * rng.random((24, 1))], axis=1)
        text = np.concatenate([onehot, np.ones((24, 1))], axis=1)
        plain.append(ranks(text, video, np.arange(24)))
        by_meaning.append(meanings.ranks(video, text)["t2v"])
    measured = retrieval_metrics(np.concatenate(plain), prefix="t2v")
    measured |= retrieval_metrics(np.concatenate(by_meaning), prefix="t2v_meaning")
    expected = meanings.oracles()["ingredient"]
    assert {key: expected[key] for key in measured} == pytest.approx(measured, rel=0.03)
