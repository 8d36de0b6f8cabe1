"""The narration: sentences with many paraphrases, before, during or after the action, cut into captions as by ASR."""

import re
from collections.abc import Iterable

import numpy as np

from mmpt_plugin.shards.captions import Caption
from mmpt_plugin.toy_kitchen.recipes import DISHES, Recipe, Step
from mmpt_plugin.toy_kitchen.sprites import COLOURS, INGREDIENTS

WORDS_PER_SECOND = 2.3

# For each action: (plain form, -ing form, past participle) of its synonyms.
VERBS = {
    "chop": [("chop", "chopping", "chopped"), ("slice", "slicing", "sliced"), ("cut up", "cutting up", "cut up"), ("dice", "dicing", "diced")],
    "peel": [("peel", "peeling", "peeled"), ("skin", "skinning", "skinned"), ("take the skin off", "taking the skin off", "peeled")],
    "grate": [("grate", "grating", "grated"), ("shred", "shredding", "shredded")],
    "wash": [("wash", "washing", "washed"), ("rinse", "rinsing", "rinsed"), ("clean", "cleaning", "cleaned")],
    "add": [("add", "adding", "added"), ("drop in", "dropping in", "dropped in"), ("toss in", "tossing in", "tossed in")],
    "stir": [("stir", "stirring", "stirred"), ("mix", "mixing", "mixed")],
    "mash": [("mash", "mashing", "mashed"), ("crush", "crushing", "crushed")],
    "season": [("season", "seasoning", "seasoned"), ("salt", "salting", "salted"), ("sprinkle salt on", "sprinkling salt on", "salted")],
    "fry": [("fry", "frying", "fried"), ("brown", "browning", "browned"), ("cook", "cooking", "cooked")],
    "boil": [("boil", "boiling", "boiled"), ("simmer", "simmering", "simmered")],
}  # fmt: skip

NOUNS = {
    "tomato": ("tomato", "ripe tomato"), "carrot": ("carrot", "crunchy carrot"), "cucumber": ("cucumber", "long cucumber"),
    "onion": ("onion", "brown onion"), "potato": ("potato", "spud"), "pepper": ("pepper", "bell pepper", "sweet pepper"),
    "mushroom": ("mushroom", "button mushroom"), "broccoli": ("broccoli",), "eggplant": ("eggplant", "aubergine"),
    "corn": ("corn", "sweet corn", "cob of corn"), "lemon": ("lemon", "juicy lemon"), "apple": ("apple", "crisp apple"),
    "banana": ("banana", "soft banana"), "strawberry": ("strawberry", "fresh strawberry"), "orange": ("orange", "sweet orange"),
    "avocado": ("avocado", "soft avocado"), "egg": ("egg", "fresh egg"), "cheese": ("cheese", "piece of cheese"),
    "bread": ("bread", "slice of bread", "toast"), "fish": ("fish", "whole fish"), "shrimp": ("shrimp", "prawn"),
    "chocolate": ("chocolate", "bar of chocolate"), "pumpkin": ("pumpkin", "squash"), "garlic": ("garlic", "clove of garlic"),
}  # fmt: skip

VESSELS = {
    "board": ("board", "chopping board"),
    "bowl": ("bowl", "mixing bowl"),
    "pan": ("pan", "skillet"),
    "pot": ("pot", "saucepan"),
}
PREPOSITION = {"board": "on", "bowl": "in", "pan": "in", "pot": "in"}

AHEAD = [
    "now we are going to {verb} the {noun}",
    "next up go ahead and {verb} the {noun} {place}",
    "so the next thing is to {verb} this {noun}",
    "i want you to {verb} the {noun} {place}",
    "okay let us {verb} our {noun}",
]
DURING = [
    "i am just {verbing} the {noun} here {place}",
    "you keep {verbing} the {noun} nice and slow",
    "see how i am {verbing} the {noun}",
    "{verbing} the {noun} like this takes a moment",
]
AFTER = [
    "so that was the {noun} all {verbed}",
    "as you saw i {verbed_past} the {noun} {place}",
    "and there you have the {noun} nicely {verbed}",
    "that {noun} is {verbed} just how i like it",
]
FOLLOW_UP = [
    "take your time with it",
    "my grandma always did it this way",
    "it should look just like that",
    "keep going until it looks right",
    "that smells so good already",
]
GREETING = [
    "hi everyone welcome back to my kitchen today we make {dish}",
    "hello friends today i show you how to make my favorite {dish}",
    "hey guys so this is my {dish} and it is really easy",
]
GOODBYE = [
    "and that is it enjoy your {dish} and let me know in the comments",
    "thanks for watching and see you next time",
    "so good please subscribe for more and bye for now",
]
DESCRIPTION = [
    "{verbing} the {noun} {place}",
    "someone is {verbing} the {noun} {place}",
    "a {noun} being {verbed} {place}",
    "{verb} the {noun} {place}",
    "the cook is {verbing} a {noun} {place}",
]


def describe_step(step: Step, rng: np.random.Generator) -> str:
    """A description as from an annotator who sees the step; half of them name the vessel's color."""
    return fill(str(rng.choice(DESCRIPTION)), step, rng, colour_share=0.5)


def narrate(recipe: Recipe, rng: np.random.Generator) -> list[Caption]:
    """Captions in time order, without overlap, within the video.

    Each video has an offset of -4 to +4 s between narration and action, and each sentence deviates from it with a
    standard deviation of 2 s. One step in eight is not narrated.
    """
    habit = rng.uniform(-4.0, 4.0)
    spoken = [(0.3, str(rng.choice(GREETING)).format(dish=recipe.dish))]
    for step in recipe.steps:
        if rng.random() < 1 / 8:
            continue
        offset = habit + rng.normal(0.0, 2.0)
        templates = AHEAD if offset < -1.5 else AFTER if offset > 2.5 else DURING
        spoken.append((step.start + offset, fill(str(rng.choice(templates)), step, rng, colour_share=1 / 3)))
        if rng.random() < 0.4:
            spoken.append((step.start + offset + 1.0, str(rng.choice(FOLLOW_UP))))
    spoken.append((recipe.duration - 5.0, str(rng.choice(GOODBYE)).format(dish=recipe.dish)))
    return timed(spoken, recipe.duration)


def timed(spoken: list[tuple[float, str]], duration: int) -> list[Caption]:
    """Sentences in order and without overlap, cut into captions of up to seven words."""
    captions: list[Caption] = []
    now = 0.0
    for wanted, sentence in spoken:
        now = max(now, wanted)
        words = sentence.split()
        for begin in range(0, len(words), 7):
            piece = words[begin : begin + 7]
            end = now + len(piece) / WORDS_PER_SECOND
            if end > duration:
                return captions
            captions.append(Caption(round(now, 2), round(end, 2), " ".join(piece)))
            now = round(end, 2)
    return captions


def fill(template: str, step: Step, rng: np.random.Generator, *, colour_share: float) -> str:
    """A sentence with random synonyms; `colour_share` is the probability that a named vessel has its color."""
    verb, verbing, verbed = VERBS[step.action][rng.integers(len(VERBS[step.action]))]
    place = ""
    if step.action != "wash" and rng.random() < 0.75:
        colour = f"{step.colour} " if rng.random() < colour_share else ""
        place = f"{PREPOSITION[step.vessel]} the {colour}{rng.choice(VESSELS[step.vessel])}"
    noun = str(rng.choice(NOUNS.get(step.ingredient, (step.ingredient,))))
    text = template.format(verb=verb, verbing=verbing, verbed=verbed, verbed_past=verbed, noun=noun, place=place)
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))


def vocabulary(more: Iterable[str] = ()) -> list[str]:
    """A WordPiece vocabulary: special tokens, characters, and every word of the templates and of `more`."""
    texts = [
        *more,
        *AHEAD,
        *DURING,
        *AFTER,
        *FOLLOW_UP,
        *GREETING,
        *GOODBYE,
        *DESCRIPTION,
        *DISHES,
        *COLOURS,
        *INGREDIENTS,
    ]
    texts += [form for forms in VERBS.values() for synonym in forms for form in synonym]
    texts += [word for words in [*NOUNS.values(), *VESSELS.values()] for word in words]
    texts += ["a", "an", "the", *PREPOSITION.values()]
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+", re.sub(r"{\w+}", " ", text))})
    letters = [chr(code) for code in [*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1)]]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*letters, *(f"##{letter}" for letter in letters), *".,!?'-"]
    return [*special, *pieces, *(word for word in words if word not in letters)]
