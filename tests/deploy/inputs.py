"""What the tests of deploy put in: unit vectors, and the names of the seven photos."""

import numpy as np

NAMES = ["0.jpg", "1.jpg", "more/2.JPG", "more/3.JPG", "more/4.JPG", "more/5.JPG", "more/6.JPG"]


def unit(vectors):
    """Rows scaled to length 1, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def drawn(count, seed=0, dim=6):
    """So many random unit vectors."""
    return unit(np.random.default_rng(seed).standard_normal((count, dim)))
