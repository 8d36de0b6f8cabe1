"""The content of a video: a dish, and its timed steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmpt_plugin.toy_kitchen.sprites import COLOURS

# Dishes share actions and many ingredients, so different dishes are hard to distinguish.
DISHES = {
    "vegetable soup": ("carrot", "potato", "onion", "corn", "pumpkin", "garlic", "mushroom"),
    "fruit salad": ("apple", "banana", "orange", "strawberry", "lemon", "chocolate", "avocado"),
    "summer salad": ("tomato", "cucumber", "pepper", "onion", "avocado", "cheese", "egg", "lemon"),
    "pizza": ("tomato", "cheese", "mushroom", "pepper", "onion", "eggplant", "bread"),
    "stir fry": ("shrimp", "broccoli", "carrot", "pepper", "garlic", "mushroom", "corn"),
    "fish dinner": ("fish", "lemon", "potato", "garlic", "tomato", "broccoli", "shrimp"),
    "breakfast": ("egg", "bread", "cheese", "tomato", "banana", "mushroom", "avocado", "apple"),
    "vegetable curry": ("eggplant", "pumpkin", "potato", "garlic", "tomato", "cucumber", "corn"),
    "dessert": ("chocolate", "strawberry", "banana", "apple", "orange", "pumpkin", "bread", "egg"),
}

# The vessel of each action; washing also uses the tap.
ACTIONS = {
    "chop": "board",
    "peel": "board",
    "grate": "board",
    "wash": "bowl",
    "add": "bowl",
    "stir": "bowl",
    "mash": "bowl",
    "season": "pan",
    "fry": "pan",
    "boil": "pot",
}

NOT_PEELED = {
    "bread",
    "cheese",
    "fish",
    "chocolate",
    "strawberry",
    "mushroom",
    "broccoli",
    "tomato",
    "pepper",
}
NOT_GRATED = {"egg", "banana", "fish", "shrimp", "strawberry", "tomato", "broccoli", "mushroom", "avocado"}
NOT_WET = {"bread", "cheese", "chocolate"}


@dataclass(frozen=True)
class Step:
    """One action on one ingredient, from `start` to `end` in seconds."""

    action: str
    ingredient: str
    vessel: str
    colour: str
    start: float
    end: float


@dataclass(frozen=True)
class Recipe:
    """The content of one video: a dish, and its steps in time order."""

    dish: str
    steps: tuple[Step, ...]
    duration: int
    """Seconds."""


def invent(rng: np.random.Generator, dishes: Mapping[str, tuple[str, ...]] = DISHES) -> Recipe:
    """A random recipe of four to seven steps of 3 to 6.5 s, with time for a greeting before and a goodbye after.

    `dishes` are the ingredients of each dish.
    """
    dish = str(rng.choice(list(dishes)))
    colours = {vessel: str(rng.choice(list(COLOURS))) for vessel in ("board", "bowl", "pan", "pot")}
    ingredients = rng.permutation(dishes[dish])[: rng.integers(3, 6)]
    now = rng.uniform(2.0, 4.0)
    steps: list[Step] = []
    done: set[tuple[str, str]] = set()
    num_steps = int(rng.integers(4, 8))
    while len(steps) < num_steps:
        ingredient, action = str(rng.choice(ingredients)), str(rng.choice(list(ACTIONS)))
        if (action, ingredient) in done or not possible(action, ingredient):
            continue
        done.add((action, ingredient))
        end = now + rng.uniform(3.0, 6.5)
        vessel = ACTIONS[action]
        steps.append(Step(action, ingredient, vessel, colours[vessel], round(now, 1), round(end, 1)))
        now = end + rng.uniform(0.3, 0.9)
    return Recipe(dish, tuple(steps), int(np.ceil(now + rng.uniform(2.0, 3.5))))


def possible(action: str, ingredient: str) -> bool:
    """Whether an action makes sense for an ingredient; bread, for example, is not peeled or washed."""
    barred = {"peel": NOT_PEELED, "grate": NOT_GRATED, "wash": NOT_WET, "boil": NOT_WET}
    return ingredient not in barred.get(action, set())
