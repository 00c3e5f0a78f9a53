"""Galleries that say which they are, and processes that save them, are killed, and read them."""

import os
import select
import signal
import sys

import numpy as np

from deploy import Gallery

DIM = 6
STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def numbered(number):
    """Gallery number so-and-so: each of its entries says the number by name, camera, tag and embedding."""
    gallery, count = Gallery("5eed" * 16, DIM), 20 + number % 7
    embeddings, names = np.eye(DIM, dtype=np.float32)[[number % DIM] * count], [f"{number}.{i}" for i in range(count)]
    gallery.add(embeddings, names, cameras=[number] * count, tags=[str(number)] * count)
    return gallery


def number_of(gallery):
    """Which gallery this is; AssertionError unless it is that one as a whole."""
    number, expected = gallery.cameras[0], numbered(gallery.cameras[0])
    assert (gallery.names, gallery.tags) == (expected.names, expected.tags)
    query = np.eye(DIM, dtype=np.float32)[[number % DIM]]
    assert gallery.search(query, 100) == expected.search(query, 100)
    return int(number)


def files_of(folder):
    """The files of the only generation there: column -> path."""
    [generation] = folder.glob("generation-*")
    return {path.stem: path for path in generation.iterdir()}


def save_on(folder, number):
    """Save this gallery and the following ones, and tell each that is saved, until killed."""
    print(os.getpid(), flush=True)
    while True:
        numbered(number).save(folder)
        print(number, flush=True)
        number += 1


def save_until(folder, number, step):
    """Save this gallery and be killed before so many files were opened, made, moved or removed."""
    gallery = numbered(number)
    steps = iter(range(step))

    def watch(event, _):
        if event in STEPS and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    gallery.save(folder)
    os.kill(os.getpid(), signal.SIGTERM)  # it came to its end


def read_on(folder):
    """Load until told to stop; what was loaded before stays as it was; then tell how often, and what was seen."""
    print("ready", flush=True)
    before, numbers = None, []
    while not select.select([sys.stdin], [], [], 0)[0]:
        gallery = Gallery.load(folder, verify=True)
        numbers.append(number_of(gallery))
        assert before is None or number_of(before) == numbers[-2]
        before = gallery
    assert numbers == sorted(numbers)
    print(len(numbers), len(set(numbers)))


def main():
    """Do what each line of the input says in a process of its own, and tell the signal that ended it."""
    for line in sys.stdin:
        name, folder, *numbers = line.split()
        child = os.fork()
        if not child:
            {"save_on": save_on, "save_until": save_until}[name](folder, *map(int, numbers))
        print("ended by", os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    read_on(sys.argv[1]) if sys.argv[1:] else main()
