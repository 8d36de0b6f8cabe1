"""Draw the frames of the toy kitchen: a room, and a characteristic motion for every action."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import cos, pi, sin

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mmpt_plugin.toy_kitchen.recipes import Recipe, Step
from mmpt_plugin.toy_kitchen.sprites import COLOURS, DARK, inside, render, sprite

WIDTH, HEIGHT, FPS = 224, 168, 10
WALLS = ((250, 232, 206), (214, 232, 240), (226, 240, 218), (244, 220, 224), (236, 230, 246), (240, 240, 232))
TABLES = ((172, 122, 82), (142, 100, 70), (204, 166, 120), (120, 130, 140), (196, 186, 172))

Place = Callable[[Image.Image, float, float], None]


def frames(recipe: Recipe, rng: np.random.Generator) -> Iterator[UInt8[np.ndarray, "168 224 3"]]:
    """All frames of a video; each video has its own room, position, size, tempo and handedness."""
    room = draw_room(rng)
    size = int(rng.integers(58, 74))
    x, y = WIDTH / 2 + rng.uniform(-18, 18), 95 + rng.uniform(-5, 5)
    tempo, mirrored = rng.uniform(0.8, 1.3), rng.random() < 0.5
    for number in range(recipe.duration * FPS):
        now = number / FPS
        picture = room.copy()
        place = partial(put, picture)
        step = next((s for s in recipe.steps if s.start <= now < s.end), None)
        if step is None:
            place(sprite("tool", "chef", 76, 76), WIDTH / 2 + 6 * sin(now * 4), 88 + 4 * abs(sin(now * 6)))
        else:
            progress = (now - step.start) / (step.end - step.start)
            draw_step(place, step, x, y, size, progress, now * tempo)
        if mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        yield np.asarray(picture)


def put(picture: Image.Image, image: Image.Image, x: float, y: float) -> None:
    """Paste an image centered at (x, y)."""
    picture.paste(image, (round(x - image.width / 2), round(y - image.height / 2)), image)


def draw_room(rng: np.random.Generator) -> Image.Image:
    """A background in random colors, with wall lines, a table, a window and a shelf."""
    wall, table = WALLS[rng.integers(len(WALLS))], TABLES[rng.integers(len(TABLES))]
    picture = Image.new("RGB", (WIDTH, HEIGHT), wall)
    pencil = ImageDraw.Draw(picture)
    line = tuple(int(c * 0.95) for c in wall)
    spacing = int(rng.integers(14, 30))
    for x in range(0, WIDTH, spacing):
        pencil.line((x, 0, x, 112), fill=line, width=2)
    if rng.random() < 0.6:
        for y in range(spacing, 112, spacing):
            pencil.line((0, y, WIDTH, y), fill=line, width=2)
    pencil.rectangle((0, 112, WIDTH, HEIGHT), fill=table)
    pencil.rectangle((0, 112, WIDTH, 117), fill=tuple(int(c * 0.85) for c in table))
    left = int(rng.integers(4, 24))
    pencil.rectangle((left, 10, left + 34, 46), fill=(200, 228, 246), outline=(255, 255, 255), width=3)
    pencil.line((left + 17, 10, left + 17, 46), fill=(255, 255, 255), width=2)
    shelf = WIDTH - int(rng.integers(56, 70))
    pencil.rectangle((shelf, 40, WIDTH - 6, 44), fill=(150, 110, 76))
    for i, colour in enumerate(rng.permutation(list(COLOURS))[:3]):
        pencil.rounded_rectangle((shelf + 3 + 17 * i, 24, shelf + 15 + 17 * i, 40), 3, fill=COLOURS[colour])
    return picture


@dataclass(frozen=True)
class Scene:
    """The inputs of a motion: its objects, their position, and the progress of the step."""

    place: Place
    container: Image.Image
    food: Image.Image
    x: float
    y: float
    size: int
    progress: float
    """0 to 1 within the step."""
    time: float
    """Seconds, at the video's tempo."""
    colour: tuple[int, ...]
    """Color of the ingredient's pieces."""


def draw_step(place: Place, step: Step, x: float, y: float, size: int, progress: float, time: float) -> None:
    """Draw a step at (x, y); `progress` is 0 to 1 within the step, `time` is in seconds at the video's tempo."""
    container = sprite("vessel", step.vessel, 136, 68, colour=step.colour)
    food = sprite("ingredient", step.ingredient, size, size)
    MOTIONS[step.action](Scene(place, container, food, x, y, size, progress, time, inside(step.ingredient)))


def piece(colour: tuple[int, ...], width: int, height: int) -> Image.Image:
    """An oval with a darker edge, such as a chopped piece or a drop."""
    dark = tuple(int(c * 0.8) for c in colour[:3])
    return render((("e", (0.0, 0.0, 1.0, 1.0), dark), ("e", (0.06, 0.06, 0.94, 0.94), colour)), width, height)


def draw_chop(s: Scene) -> None:
    """A knife moves up and down and shortens the food; pieces collect next to it."""
    s.place(s.container, s.x, s.y + 34)
    cut = s.size * (1 - 0.8 * s.progress)
    s.place(s.food.crop((0, 0, max(4, round(cut)), s.size)), s.x - s.size * 0.5 + cut / 2 - 12, s.y + 8)
    for i in range(int(s.progress * 7)):
        s.place(piece(s.colour, 11, s.size // 2), s.x + 8 + 8 * i, s.y + 16 + 2 * (i % 2))
    s.place(
        sprite("tool", "knife", 78, 44, 40),
        s.x - 12 + cut - s.size * 0.5 + 26,
        s.y - 10 - 18 * abs(sin(s.time * 7)),
    )


def draw_peel(s: Scene) -> None:
    """A peeler moves along the food, bares it from the left, and peels collect below."""
    s.place(s.container, s.x, s.y + 34)
    s.place(s.food, s.x, s.y + 2)
    bare = piece(s.colour, max(4, round(s.size * 0.8 * s.progress)), round(s.size * 0.5))
    s.place(bare, s.x - s.size * 0.35 + bare.width / 2, s.y + 4)
    for i in range(int(s.progress * 6)):
        s.place(piece(food_colour(s.food), 22, 6), s.x - 44 + 17 * i, s.y + 40 + 4 * (i % 2))
    s.place(
        sprite("tool", "peeler", 40, 56, 30),
        s.x - s.size * 0.4 + s.size * 0.8 * ((s.time * 1.2) % 1),
        s.y - 24,
    )


def draw_grate(s: Scene) -> None:
    """The food moves up and down a grater; shreds collect below."""
    s.place(s.container, s.x, s.y + 34)
    for i in range(int(s.progress * 18)):
        s.place(piece(s.colour, 14, 4), s.x - 44 + 5 * (i % 7), s.y + 40 - 4 * (i // 7))
    s.place(sprite("tool", "grater", 54, 84), s.x + 12, s.y - 2)
    s.place(
        s.food.resize((round(s.size * 0.75),) * 2),
        s.x - 22 + 8 * sin(s.time * 9),
        s.y - 14 + 24 * sin(s.time * 9),
    )


def draw_wash(s: Scene) -> None:
    """Water drops from a tap onto the food, which sways."""
    s.place(sprite("tool", "tap", 60, 76), s.x + 34, s.y - 44)
    s.place(s.food, s.x + 4 * sin(s.time * 5), s.y + 14)
    water = (110, 180, 240, 170)
    s.place(render((("r", (0.0, 0.0, 1.0, 1.0, 0.1), water),), 12, 66), s.x + 18, s.y - 4)
    for i in range(8):
        fall = (s.time * 1.6 + i / 8) % 1
        s.place(piece((150, 205, 250), 6, 8), s.x + 18 + (i - 3.5) * 14 * fall, s.y + 18 + 34 * fall)
    s.place(s.container, s.x, s.y + 46)


def draw_add(s: Scene) -> None:
    """The food falls from a hand into the container, again and again; pieces collect there."""
    fall = (s.time * 0.7) % 1
    small = s.food.resize((round(s.size * 0.8),) * 2)
    s.place(sprite("tool", "hand", 76, 40), s.x + 52, s.y - 62)
    s.place(small, s.x + 6, s.y - 52 + 66 * fall * fall)
    s.place(s.container, s.x, s.y + 36)
    for i in range(int(s.progress * 5)):
        s.place(piece(s.colour, 16, 12), s.x - 34 + 17 * i, s.y + 22)


def draw_stir(s: Scene) -> None:
    """A spoon and pieces of the food circle in the container."""
    s.place(s.container, s.x, s.y + 36)
    s.place(piece(s.colour, 104, 18), s.x, s.y + 22)
    for i in range(5):
        angle = s.time * 4 + i * 2 * pi / 5
        s.place(s.food.resize((26, 26)), s.x + 36 * cos(angle), s.y + 18 + 6 * sin(angle))
    s.place(sprite("tool", "spoon", 62, 76), s.x + 30 * cos(s.time * 4) + 16, s.y - 14 + 7 * sin(s.time * 4))


def draw_mash(s: Scene) -> None:
    """A masher presses the food, which gets flat and wide."""
    flat = max(12, round(s.size * (1 - 0.7 * s.progress)))
    press = abs(sin(s.time * 5))
    s.place(s.food.resize((round(s.size * (1 + 0.3 * s.progress)), flat)), s.x, s.y + 24 - flat / 2)
    s.place(piece(s.colour, round(20 + 80 * s.progress), 12), s.x, s.y + 22)
    s.place(sprite("tool", "masher", 56, 84), s.x, s.y - 14 - flat / 2 - 20 * press)
    s.place(s.container, s.x, s.y + 40)


def draw_season(s: Scene) -> None:
    """A shaker swings from side to side and scatters white grains over the food."""
    s.place(s.container, s.x, s.y + 38)
    s.place(s.food, s.x - 6, s.y + 6)
    shake = 7 * sin(s.time * 14)
    s.place(sprite("tool", "shaker", 36, 48, 20), s.x + shake, s.y - 56)
    for i in range(14):
        fall = (s.time * 1.4 + i * 0.37) % 1
        s.place(piece((255, 255, 255), 4, 4), s.x - 26 + 4 * i + shake * (1 - fall), s.y - 34 + 52 * fall)


def draw_fry(s: Scene) -> None:
    """The food hops and tilts in the container, over flames and under steam."""
    for i in range(3):
        s.place(sprite("tool", "flame", 26, 24 + round(6 * sin(s.time * 11 + i))), s.x - 32 + 27 * i, s.y + 54)
    hop = abs(sin(s.time * 6))
    s.place(s.container, s.x, s.y + 38)
    s.place(s.food.rotate(25 * sin(s.time * 6), Image.Resampling.BICUBIC), s.x - 4, s.y + 10 - 16 * hop)
    for i in range(2):
        rise = (s.time * 0.6 + i / 2) % 1
        s.place(sprite("tool", "steam", 26, 30), s.x - 30 + 50 * i, s.y - 20 - 34 * rise)


def draw_boil(s: Scene) -> None:
    """The food moves gently in water, with flames below and rising bubbles."""
    for i in range(3):
        s.place(sprite("tool", "flame", 26, 22 + round(5 * sin(s.time * 11 + i))), s.x - 30 + 27 * i, s.y + 60)
    s.place(s.container, s.x, s.y + 30)
    s.place(render((("e", (0.0, 0.0, 1.0, 1.0), (160, 206, 236, 230)),), 100, 20), s.x - 1, s.y + 11)
    s.place(
        s.food.crop((0, 0, s.size, round(s.size * 0.7))),
        s.x + 6 * sin(s.time * 2),
        s.y - 6 + 5 * sin(s.time * 3),
    )
    for i in range(6):
        rise = (s.time * 1.1 + i / 6) % 1
        s.place(sprite("tool", "bubble", 12, 12), s.x - 44 + 17 * i, s.y + 12 - 40 * rise)


def food_colour(food: Image.Image) -> tuple[int, ...]:
    """The color of an ingredient's skin: a pixel left of the middle, if the picture is opaque there."""
    colour = food.getpixel((food.width // 3, food.height // 2))
    assert isinstance(colour, tuple)
    return tuple(int(c) for c in colour[:3]) if colour[3] > 128 else DARK


MOTIONS: dict[str, Callable[[Scene], None]] = {
    "chop": draw_chop,
    "peel": draw_peel,
    "grate": draw_grate,
    "wash": draw_wash,
    "add": draw_add,
    "stir": draw_stir,
    "mash": draw_mash,
    "season": draw_season,
    "fry": draw_fry,
    "boil": draw_boil,
}
