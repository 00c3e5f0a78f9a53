"""What ships: from images to embeddings, and to the nearest of them, with numpy, pillow and onnxruntime."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .extractor import FeatureExtractor, Outputs
    from .gallery import Gallery, GalleryError, Hit
    from .preprocess import ImageError, Preprocessing
    from .search import Nearest, SearchError, nearest
    from .session import ModelError

__version__ = "0.1.0"

__all__ = ["FeatureExtractor", "Gallery", "GalleryError", "Hit", "ImageError", "ModelError", "Nearest", "Outputs",
           "Preprocessing", "SearchError", "nearest"]

_MODULES = ("search", "gallery", "preprocess", "session", "extractor")  # those that need the least first


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: who needs a small module alone starts without numpy and onnxruntime."""
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f".{module}", __name__))
            if name in found:
                return globals().setdefault(name, found[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
