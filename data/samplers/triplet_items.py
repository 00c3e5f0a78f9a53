"""Every image as an anchor, with a positive and a negative of its own; Zheng et al.'s verification, 2016."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field


class TripletItems:
    """Every image once per epoch as an anchor, in random order; a batch is [anchors | positives | negatives].

    A positive is any other image of the anchor's identity, or the anchor where there is none. A negative is any
    image of the others, or any image of any one of the others. The last anchors that fill no batch sit the
    epoch out. Raises ValueError for fewer than two identities, or fewer images than anchors.
    """

    def __init__(
        self,
        labels: np.ndarray,
        seed: int,
        *,
        anchors: Annotated[int, Field(ge=1, le=10**6), "anchors in a batch, which holds 3 x as many images"],
        negatives: Annotated[
            Literal["images", "identities"], "drawn evenly among the others' images, or among the others"] = "images",
    ) -> None:
        self._seed, self._anchors, self._negatives = seed, anchors, negatives
        # Row r of the table is image `order[r]`; an identity's images are the `counts` rows from `starts` on.
        self._order = np.argsort(labels, kind="stable")
        _, self._starts, self._identities, self._counts = np.unique(
            labels[self._order], return_index=True, return_inverse=True, return_counts=True)
        if len(self._counts) < 2:
            raise ValueError(f'batch_sampling_params.type: "triplet_items" needs images of two identities or more, the '
                             f"train split has {len(self._counts)}; add images")
        if len(labels) < anchors:
            raise ValueError(f"batch_sampling_params.anchors: {anchors} a batch asked, the train split has "
                             f"{len(labels)} images; lower it")

    def __len__(self) -> int:
        return len(self._order) // self._anchors

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of image indices, each (3 * anchors,)."""
        rng = np.random.default_rng([self._seed, epoch])
        rows = rng.permutation(len(self._order))[:len(self) * self._anchors]
        draw = self._other_images if self._negatives == "images" else self._other_identities
        triplets = self._order[np.stack([rows, self._positives(rows, rng), draw(rows, rng)])]
        return list(triplets.reshape(3, len(self), self._anchors).swapaxes(0, 1).reshape(len(self), -1))

    def _positives(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        own = self._identities[rows]
        starts, counts = self._starts[own], self._counts[own]
        # 1 to count - 1 places further round; of a single image, 1 place further is itself.
        positives: np.ndarray = starts + (rows - starts + rng.integers(1, np.maximum(counts, 2))) % counts
        return positives

    def _other_images(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        own = self._identities[rows]
        drawn = rng.integers(len(self._order) - self._counts[own])
        negatives: np.ndarray = drawn + self._counts[own] * (drawn >= self._starts[own])  # past the anchor's own rows
        return negatives

    def _other_identities(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        own = self._identities[rows]
        drawn = rng.integers(len(self._counts) - 1, size=len(own))
        others = drawn + (drawn >= own)  # past the anchor's own
        negatives: np.ndarray = self._starts[others] + rng.integers(self._counts[others])
        return negatives
