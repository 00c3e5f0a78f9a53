"""P identities times K images a batch, identities with more images more often; as norm-aware margins (NAMA) use."""

import numpy as np

from data.samplers.index import IdentityCount, ImageCount, at_least, take


class PKProp:
    """Chunks of K images; a batch takes one of each of P identities, drawn in proportion to their remaining chunks.

    An identity's images that fill no chunk sit the epoch out; one with fewer than K makes a single chunk, with
    each of them and some again. The number of batches is the largest that the chunks allow, whatever is drawn:
    where an identity has to be taken for that, it is. Raises ValueError for fewer than P identities.
    """

    def __init__(self, labels: np.ndarray, seed: int, *, P: IdentityCount, K: ImageCount) -> None:
        self._images, self._seed = at_least(P, labels), seed
        self._p, self._k = P, K
        self._chunks = np.array([max(len(images) // K, 1) for images in self._images])
        self._length = most_batches(self._chunks, P)

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of image indices, each (P * K,)."""
        rng = np.random.default_rng([self._seed, epoch])
        chunks = [take(images, count * self._k, rng).reshape(count, self._k)
                  for images, count in zip(self._images, self._chunks, strict=True)]
        left = self._chunks.copy()
        batches = []
        for remaining in range(len(self), 0, -1):
            identities = self._draw(left, remaining, rng)
            left[identities] -= 1
            batches.append(np.concatenate([chunks[identity][left[identity]] for identity in identities]))
        return batches

    def _draw(self, left: np.ndarray, remaining: int, rng: np.random.Generator) -> np.ndarray:
        """P identities such that the remaining batches, this one among them, can all be filled: (ids,) -> (P,)."""
        # The P smallest of exponential times with these rates are P draws in proportion, without repetition.
        times = np.divide(rng.exponential(size=len(left)), left, out=np.full(len(left), np.inf), where=left > 0)
        order = np.argsort(times)
        # An identity serves each batch once. One with a chunk for every remaining batch that is passed over now
        # loses a chunk for good, and `spare` is how many chunks there are beyond those that will be needed.
        needed = order[left[order] >= remaining]
        spare = int(np.minimum(left, remaining).sum()) - remaining * self._p
        times[needed[:max(len(needed) - spare, 0)]] = 0
        return np.argsort(times)[:self._p]


def most_batches(chunks: np.ndarray, p: int) -> int:
    """The largest number of batches of `p` different identities, (ids,) chunks each of which serves one."""
    batches = int(chunks.sum()) // p
    while (filled := int(np.minimum(chunks, batches).sum()) // p) < batches:
        batches = filled
    return batches
