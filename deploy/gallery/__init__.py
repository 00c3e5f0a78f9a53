"""Named embeddings that are added, removed, searched and kept in a folder."""

from .entries import GalleryError, Hit
from .gallery import Gallery

__all__ = ["Gallery", "GalleryError", "Hit"]
