"""P identities times K images a batch; Hermans et al., In Defense of the Triplet Loss, 2017."""

import numpy as np

from data.samplers.index import IdentityCount, ImageCount, at_least, take


class PK:
    """Every identity at most once per epoch, in random order, with K of its images, side by side in a batch.

    An identity with fewer than K images gives each of them, and draws the rest from them again. The
    last identities that are fewer than P sit the epoch out. Raises ValueError for fewer than P identities.
    """

    def __init__(self, labels: np.ndarray, seed: int, *, P: IdentityCount, K: ImageCount) -> None:
        self._images, self._seed = at_least(P, labels), seed
        self._p, self._k = P, K

    def __len__(self) -> int:
        return len(self._images) // self._p

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of image indices, each (P * K,)."""
        rng = np.random.default_rng([self._seed, epoch])
        identities = rng.permutation(len(self._images))[:len(self) * self._p]
        drawn = np.stack([take(self._images[identity], self._k, rng) for identity in identities])
        return list(drawn.reshape(len(self), self._p * self._k))  # (identities, K) -> (batches, P * K)
