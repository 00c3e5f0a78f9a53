"""Draw a small re-identification set in Market-1501's layout: python -m data.figures OUT."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.drawing import Colour, Figure, Person, View, bad_view, some_person, some_view
from data.sources import JUNK

WIDTH, HEIGHT = 64, 128
FINE = 2  # drawn at twice the size and scaled down, which smooths the edges
CAMERAS = 6
SHOTS = 4  # of an identity by one camera
SEEN = 0.9  # how often a camera sees an identity at all
QUALITY = 90  # of the JPEG files
TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
DISTRACTOR = "0000"


class Camera(NamedTuple):
    """What all pictures of one camera share."""

    scene: Image.Image  # larger than a picture
    gain: np.ndarray  # (3,) of red, green, blue
    gamma: float
    blur: float  # radius in pixels
    noise: float  # standard deviation, grey levels
    zoom: float


class Shot(NamedTuple):
    """One file of the set."""

    folder: str
    identity: str
    camera: int  # from 1
    person: Person | None  # None: the camera's scene alone
    view: View


def some_camera(rng: np.random.Generator) -> Camera:
    """A camera at random: its place, colour cast, exposure, sharpness and distance."""
    gain = rng.uniform(0.55, 1, 3)
    return Camera(_scene(rng), gain=gain / gain.max() * rng.uniform(0.75, 1.1), gamma=rng.uniform(0.65, 1.6),
                  blur=rng.uniform(0.2, 1.1), noise=rng.uniform(2, 10), zoom=rng.uniform(0.85, 1.08))


def picture(shot: Shot, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """What a camera makes of a shot: WIDTH x HEIGHT, RGB."""
    width, height = WIDTH * FINE, HEIGHT * FINE
    left = int(rng.integers(camera.scene.width - width + 1))
    top = int(rng.integers(camera.scene.height - height + 1))
    canvas = camera.scene.crop((left, top, left + width, top + height))
    if shot.person is not None:
        Figure(canvas, shot.person, shot.view._replace(scale=shot.view.scale * camera.zoom)).draw()
    small = canvas.resize((WIDTH, HEIGHT), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(camera.blur))
    light = np.asarray(small, np.float32) / 255
    exposed = light ** camera.gamma * camera.gain * rng.uniform(0.85, 1.1) * 255
    return Image.fromarray(np.clip(exposed + rng.normal(0, camera.noise, exposed.shape), 0, 255).astype(np.uint8))


def write_figures(out: Path, *, identities: int = 60, seed: int = 0) -> int:
    """Write the set into a new folder and return the number of its images; the same seed, the same bytes.

    Half of the identities are for training. FileExistsError when the folder is there.
    """
    cameras = [some_camera(np.random.default_rng([seed, 0, c])) for c in range(CAMERAS)]
    if out.exists():
        raise FileExistsError(f"{out}: exists already; give another folder, or remove it")
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # what a killed process left
    try:
        for folder in (TRAIN, QUERY, GALLERY):
            (beside / folder).mkdir(parents=True)
        count = 0
        for count, shot in enumerate(_shots(identities, seed), 1):
            image = picture(shot, cameras[shot.camera - 1], np.random.default_rng([seed, 1, count]))
            name = f"{shot.identity}_c{shot.camera}s1_{count:06d}_00.jpg"
            image.save(beside / shot.folder / name, quality=QUALITY)
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def _shots(identities: int, seed: int) -> Iterator[Shot]:
    people = _people(identities * 2, seed)
    for number in range(1, identities + 1):
        yield from _of_identity(number, people[number - 1], number <= identities // 2, seed)
    for number in range(identities):  # strangers, and scenes in which the detector saw someone
        rng = np.random.default_rng([seed, 3, number])
        for person in (people[identities + number], None):
            yield Shot(GALLERY, DISTRACTOR, int(rng.integers(CAMERAS)) + 1, person, some_view(rng))
        known = people[identities - 1 - number // 2]
        yield Shot(GALLERY, JUNK, int(rng.integers(CAMERAS)) + 1, known, bad_view(rng))


def _of_identity(number: int, person: Person, trained: bool, seed: int) -> Iterator[Shot]:
    for camera in range(1, CAMERAS + 1):
        rng = np.random.default_rng([seed, 2, number, camera])
        if camera > 2 and rng.random() > SEEN:  # two cameras at least, so that every query has a match
            continue
        for shot in range(SHOTS):
            folder = TRAIN if trained else GALLERY if shot else QUERY
            yield Shot(folder, f"{number:04d}", camera, person, some_view(rng))


def _people(count: int, seed: int) -> list[Person]:
    """Persons of whom each pair differs in at least four traits."""
    people: list[Person] = []
    attempt = 0
    while len(people) < count:
        person = some_person(np.random.default_rng([seed, 4, attempt]))
        attempt += 1
        if all(sum(mine != theirs for mine, theirs in zip(person[:12], other[:12], strict=True)) >= 4
               for other in people):
            people.append(person)
    return people


def _scene(rng: np.random.Generator) -> Image.Image:
    width, height = WIDTH * FINE * 2, HEIGHT * FINE * 5 // 4
    scene = Image.new("RGB", (width, height), _some_colour(rng))
    pen = ImageDraw.Draw(scene)
    pen.rectangle((0, height * rng.uniform(0.4, 0.7), width, height), fill=_some_colour(rng))
    for _ in range(rng.integers(8, 20)):  # doors, posts, signs
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        pen.rectangle((x, y, x + rng.uniform(4, 60), y + rng.uniform(10, 120)), fill=_some_colour(rng))
    return scene.filter(ImageFilter.GaussianBlur(2))


def _some_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = np.clip(rng.normal(rng.uniform(50, 200), 18, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def main(given: Sequence[str] | None = None) -> int:
    """0 done, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m data.figures", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder for the images")
    parser.add_argument("--identities", type=int, default=60, help="half of them for training (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws another set (default: 0)")
    arguments = parser.parse_args(given)
    if arguments.identities < 4 or arguments.seed < 0:
        parser.error("--identities from 4 and --seed from 0 expected")
    try:
        count = write_figures(arguments.out, identities=arguments.identities, seed=arguments.seed)
    except OSError as error:
        parser.error(str(error))
    print(f"{arguments.out}: {count} images of {arguments.identities} identities by {CAMERAS} cameras")
    return 0


if __name__ == "__main__":
    sys.exit(main())
