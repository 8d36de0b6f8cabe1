"""Draw a kitchen of many dishes straight as features, with the statistics of the toy kitchen's, for ablations.

    python -m benchmarks.large_kitchen --out large/data/toy_kitchen

Run `make demo` first: it creates data/toy_kitchen. Its features, reduced to 128 principal components, are modeled as a
sum: a mean, an effect of the action, of the ingredient and of the video, and the rest, which differs from second to
second. The new kitchen has the same actions, and new ingredients of new dishes: their effects, and those of videos and
seconds, are drawn with the covariances that were found. Half of the variance of an ingredient's effect is shared by its
dish, so the ingredients of one dish look alike. Recipes, times and narration are the toy kitchen's.

The folder has the files that the project videoclip/toy_kitchen reads, except videos: run it in the folder that contains
data/, with `model.feature_dim=128` and the `model.vocab_size` that is printed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.progress import track

from mmpt_plugin.shards.make import make_shards
from mmpt_plugin.toy_kitchen.generate import annotate, video_name, webvtt, write_tokenizer
from mmpt_plugin.toy_kitchen.narration import narrate
from mmpt_plugin.toy_kitchen.recipes import Recipe, Step, invent

DATA = Path("data/toy_kitchen")
WIDTH, INGREDIENTS_PER_DISH, SHARED = 128, 7, 0.5
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]

Vector = Float[np.ndarray, " 128"]
Matrix = Float[np.ndarray, "N 128"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--dishes", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw(arguments.out, measured(), arguments.dishes, arguments.train, arguments.test, arguments.seed)


def measured() -> dict[str, np.ndarray]:
    """The statistics of the toy kitchen's training videos."""
    seed = json.loads((DATA / "about.json").read_text())["seed"]
    rows, actions, ingredients, videos = [], [], [], []
    for name in (DATA / "train.txt").read_text().split():
        features = np.load(DATA / "features" / f"{name}.npy").astype(np.float64)
        recipe = invent(np.random.default_rng([seed, int(name.removeprefix("toy_"))]))
        for second, row in enumerate(features):
            step = step_at(recipe, second)
            rows.append(row)
            actions.append(step.action if step else "")
            ingredients.append(step.ingredient if step else "")
            videos.append(name)
    x = np.stack(rows)
    x -= x.mean(axis=0)
    x = x @ np.linalg.svd(x, full_matrices=False)[2][:WIDTH].T
    found: dict[str, np.ndarray] = {}
    for kind, labels in (("action", actions), ("ingredient", ingredients), ("video", videos)):
        names, place = np.unique(labels, return_inverse=True)
        counts = np.bincount(place)[:, None]
        effects = np.stack([np.bincount(place, column, len(names)) for column in x.T], axis=1) / counts
        x = x - effects[place]
        found |= {f"{kind}_names": names, kind: effects}
    return {
        "action_names": found["action_names"],
        "action": found["action"],
        "ingredient_covariance": np.cov(found["ingredient"][found["ingredient_names"] != ""].T),
        "video_covariance": np.cov(found["video"].T),
        "rest_covariance": np.cov(x.T),
    }


def draw(
    out: Path, statistics: dict[str, np.ndarray], num_dishes: int, num_train: int, num_test: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    words = made_up_words(rng, num_dishes * (INGREDIENTS_PER_DISH + 1))
    dishes = {
        words[i]: tuple(words[num_dishes + i * INGREDIENTS_PER_DISH :][:INGREDIENTS_PER_DISH])
        for i in range(num_dishes)
    }
    root = {kind: roots(statistics[f"{kind}_covariance"]) for kind in ("ingredient", "video", "rest")}
    effects: dict[str, Vector] = dict(zip(statistics["action_names"].tolist(), statistics["action"], strict=True))
    for ingredients in dishes.values():
        shared = np.sqrt(SHARED) * normal(rng, root["ingredient"], 1)[0]
        own = np.sqrt(1 - SHARED) * normal(rng, root["ingredient"], len(ingredients))
        effects |= dict(zip(ingredients, shared + own, strict=True))
    for folder in ("features", "captions", "tokenizer"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    names = [video_name(i) for i in range(num_test + num_train)]
    lines = []
    for i, name in enumerate(track(names, "drawing features")):
        rng = np.random.default_rng([seed, i])
        recipe = invent(rng, dishes)
        (out / "captions" / f"{name}.vtt").write_text(webvtt(narrate(recipe, rng)))
        features = mean_features(recipe, effects) + normal(rng, root["video"], 1)
        features += normal(rng, root["rest"], recipe.duration)
        np.save(out / "features" / f"{name}.npy", features.astype(np.float16))
        if i < num_test:
            lines += annotate(name, recipe, rng)
    (out / "test_clips.jsonl").write_text("".join(lines))
    write_tokenizer(out / "tokenizer", words)
    print(
        make_shards(
            names[num_test:],
            features=out / "features",
            captions=out / "captions",
            tokenizer=str(out / "tokenizer"),
            out=out / "shards" / "train",
        )
    )
    print(f"{len(lines)} held-out clips; model.vocab_size={len((out / 'tokenizer' / 'vocab.txt').read_text().split())}")


def made_up_words(rng: np.random.Generator, count: int) -> list[str]:
    """Different words of three syllables."""
    numbers = rng.choice(len(SYLLABLES) ** 3, count, replace=False)
    return [
        "".join(SYLLABLES[number // len(SYLLABLES) ** power % len(SYLLABLES)] for power in range(3))
        for number in numbers
    ]


def mean_features(recipe: Recipe, effects: dict[str, Vector]) -> Matrix:
    """The features of a recipe's seconds, without the effects of the video and the rest."""
    rows = []
    for second in range(recipe.duration):
        step = step_at(recipe, second)
        rows.append(effects[step.action] + effects[step.ingredient] if step else effects[""])
    return np.stack(rows)


def step_at(recipe: Recipe, second: int) -> Step | None:
    """The step that is shown in the middle of a second, if any."""
    return next((step for step in recipe.steps if step.start <= second + 0.5 < step.end), None)


def roots(covariance: Float[np.ndarray, "128 128"]) -> Float[np.ndarray, "128 128"]:
    """The symmetric R with R R = covariance, which does not depend on the signs that LAPACK gives eigenvectors."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def normal(rng: np.random.Generator, root: Float[np.ndarray, "128 128"], count: int) -> Matrix:
    return np.asarray(rng.standard_normal((count, WIDTH)) @ root)


if __name__ == "__main__":
    main()
