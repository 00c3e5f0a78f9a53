"""Drawn people: who they are, how they stand, and their picture on a canvas."""

from collections.abc import Callable, Sequence
from math import cos, sin
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Choice = TypeVar("Choice")

SKINS: list[Colour] = [(241, 206, 178), (206, 152, 112), (141, 92, 62), (84, 54, 40)]
HAIRS: list[Colour] = [(28, 24, 22), (92, 58, 32), (196, 160, 92), (150, 150, 150)]
CLOTHES: list[Colour] = [(34, 34, 40), (226, 226, 222), (168, 40, 44), (44, 76, 150), (60, 112, 70)]
STYLES = ["short", "long", "bald", "cap"]
LOWERS = ["trousers", "shorts", "skirt"]
BAGS = ["none", "backpack", "left", "right"]

# Where the second colour of a garment is: across and down it, each 0..1, (H, W) -> (H, W) of truths.
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda across, down: np.zeros_like(down, bool),
    "hoops": lambda across, down: down * 7 % 2 >= 1,
    "stripes": lambda across, down: across * 7 % 2 >= 1,
    "halves": lambda across, down: down > 0.5,
    "sash": lambda across, down: abs(across - down) < 0.18,
    "checks": lambda across, down: (across * 4 % 2 >= 1) != (down * 5 % 2 >= 1),
}


class Person(NamedTuple):
    """What stays the same in every picture. Colours are few, so that none of them tells who it is."""

    skin: Colour
    hair: Colour
    style: str
    upper: Colour
    second: Colour  # of the pattern
    pattern: str
    long_sleeves: bool
    lower: Colour
    lower_kind: str
    shoes: Colour
    bag: str
    bag_colour: Colour
    tall: float  # fraction of the canvas
    wide: float  # 1 is usual


class View(NamedTuple):
    """How a person stands in one picture."""

    x: float  # of the middle, fraction of the canvas
    feet: float  # fraction of the canvas
    scale: float
    front: bool
    stride: float  # of the legs from the vertical, radians
    swing: float  # of the arms


def some_person(rng: np.random.Generator) -> Person:
    """A person at random."""
    upper, second = (CLOTHES[i] for i in rng.choice(len(CLOTHES), 2, replace=False))
    return Person(
        skin=one_of(rng, SKINS), hair=one_of(rng, HAIRS), style=one_of(rng, STYLES), upper=upper, second=second,
        pattern=one_of(rng, list(PATTERNS)), long_sleeves=bool(rng.random() < 0.5), lower=one_of(rng, CLOTHES),
        lower_kind=one_of(rng, LOWERS), shoes=one_of(rng, CLOTHES), bag=one_of(rng, BAGS),
        bag_colour=one_of(rng, CLOTHES), tall=rng.uniform(0.78, 0.88), wide=rng.uniform(0.85, 1.2))


def some_view(rng: np.random.Generator) -> View:
    """A view as a good detector cuts it out."""
    return View(x=rng.normal(0.5, 0.05), feet=rng.normal(0.95, 0.015), scale=rng.normal(1, 0.04),
                front=bool(rng.random() < 0.5), stride=rng.uniform(-0.45, 0.45), swing=rng.uniform(-0.5, 0.5))


def bad_view(rng: np.random.Generator) -> View:
    """A view as a failing detector cuts it out: beside the person, too near or too far."""
    side = one_of(rng, [-1, 1])
    return some_view(rng)._replace(x=0.5 + side * rng.uniform(0.4, 0.6), feet=rng.uniform(0.8, 1.5),
                                   scale=one_of(rng, [0.5, 1.8]))


def one_of(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """A choice at random."""
    return choices[int(rng.integers(len(choices)))]


class Figure:
    """A person in a view, to be drawn on a canvas. Lengths are fractions of the person's height."""

    def __init__(self, canvas: Image.Image, person: Person, view: View) -> None:
        self._canvas, self._person, self._view = canvas, person, view
        self._pen = ImageDraw.Draw(canvas)
        self._unit = person.tall * view.scale * canvas.height
        self._middle, self._feet = view.x * canvas.width, view.feet * canvas.height
        self._mirror = 1 if view.front else -1

    def draw(self) -> None:
        """From the far side to the near one."""
        self._arm(-1)
        self._legs()
        self._head()
        self._torso()
        self._arm(1)
        self._bag()

    def _at(self, x: float, height: float) -> Point:
        """A place, from the person's middle line and the ground."""
        return self._middle + x * self._unit, self._feet - height * self._unit

    def _limb(self, start: Point, angle: float, length: float, width: float, colour: Colour) -> Point:
        """A straight part from a joint, hanging at an angle; gives the next joint."""
        end = (start[0] + sin(angle) * length * self._unit, start[1] + cos(angle) * length * self._unit)
        self._pen.line([start, end], fill=colour, width=max(1, round(width * self._unit)))
        self._dot(end, width / 2, colour)
        return end

    def _dot(self, centre: Point, radius: float, colour: Colour) -> None:
        reach = radius * self._unit
        self._pen.ellipse([centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach], fill=colour)

    def _box(self, left: float, top: float, right: float, bottom: float) -> list[Point]:
        return [self._at(min(left, right), top), self._at(max(left, right), bottom)]

    def _legs(self) -> None:
        person, stride = self._person, self._view.stride
        shin = person.lower if person.lower_kind == "trousers" else person.skin
        thigh = person.skin if person.lower_kind == "skirt" else person.lower
        width = 0.085 * person.wide
        for side in (-1, 1):
            hip = self._at(side * 0.045 * person.wide, 0.5)
            knee = self._limb(hip, side * stride * 0.6, 0.24, width, thigh)
            ankle = self._limb(knee, side * stride * 0.4 - abs(stride) * 0.2, 0.22, width * 0.8, shin)
            self._dot(ankle, 0.042, person.shoes)
        if person.lower_kind == "skirt":
            hips, hem = 0.09 * person.wide, 0.14 * person.wide
            self._pen.polygon([self._at(-hips, 0.54), self._at(hips, 0.54), self._at(hem, 0.28),
                               self._at(-hem, 0.28)], fill=person.lower)

    def _torso(self) -> None:
        shoulder, hip = 0.125 * self._person.wide, 0.095 * self._person.wide
        outline = [self._at(-shoulder, 0.82), self._at(-shoulder * 0.6, 0.85), self._at(shoulder * 0.6, 0.85),
                   self._at(shoulder, 0.82), self._at(hip, 0.48), self._at(-hip, 0.48)]
        (left, top), (right, bottom) = self._box(-shoulder, 0.85, shoulder, 0.48)
        mask = Image.new("L", self._canvas.size)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        across = np.linspace(0, 1, round(right - left) + 1)[None]  # (1, W)
        down = np.linspace(0, 1, round(bottom - top) + 1)[:, None]  # (H, 1)
        second = np.broadcast_to(PATTERNS[self._person.pattern](across, down), (len(down), across.size))
        cloth = np.where(second[..., None], self._person.second, self._person.upper).astype(np.uint8)
        garment = Image.new("RGB", self._canvas.size)
        garment.paste(Image.fromarray(cloth), (round(left), round(top)))
        self._canvas.paste(garment, mask=mask)

    def _arm(self, side: int) -> None:
        person, angle = self._person, side * self._view.swing
        shoulder = self._at(side * 0.125 * person.wide, 0.8)
        lower = person.upper if person.long_sleeves else person.skin
        elbow = self._limb(shoulder, angle + side * 0.12, 0.16, 0.06 * person.wide, person.upper)
        hand = self._limb(elbow, angle * 1.3, 0.15, 0.048 * person.wide, lower)
        self._dot(hand, 0.026, person.skin)

    def _head(self) -> None:
        person, centre, radius = self._person, self._at(0, 0.925), 0.066
        if person.style == "long":
            self._pen.rounded_rectangle(self._box(-0.078, 0.98, 0.078, 0.82), radius * self._unit, fill=person.hair)
        self._pen.rectangle(self._box(-0.03, 0.9, 0.03, 0.83), fill=person.skin)
        covered = not self._view.front and person.style in ("short", "long")
        self._dot(centre, radius, person.hair if covered else person.skin)
        if person.style != "bald":
            colour = person.bag_colour if person.style == "cap" else person.hair
            low, high = centre[1] - radius * self._unit * 1.1, centre[1] + radius * self._unit
            reach = radius * self._unit * 1.1
            self._pen.chord([centre[0] - reach, low, centre[0] + reach, high], 185, 355, fill=colour)

    def _bag(self) -> None:
        person, colour = self._person, self._person.bag_colour
        if person.bag == "backpack" and self._view.front:
            for side in (-1, 1):
                x = side * 0.075 * person.wide
                self._pen.rectangle(self._box(x - 0.014, 0.84, x + 0.014, 0.62), fill=colour)
        elif person.bag == "backpack":
            self._pen.rounded_rectangle(self._box(-0.1, 0.82, 0.1, 0.56), 0.03 * self._unit, fill=colour)
        elif person.bag != "none":
            side = self._mirror * (1 if person.bag == "left" else -1)
            self._pen.line([self._at(-side * 0.08, 0.83), self._at(side * 0.12, 0.53)], fill=colour,
                           width=max(1, round(0.025 * self._unit)))
            self._pen.rectangle(self._box(side * 0.07, 0.54, side * 0.2, 0.42), fill=colour)
