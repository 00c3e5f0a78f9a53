"""What ships: from images to embeddings, and to the nearest of them, with numpy, pillow and onnxruntime."""

from .extractor import FeatureExtractor, Outputs
from .gallery import Gallery, GalleryError, Hit
from .preprocess import ImageError, Preprocessing
from .search import Nearest, SearchError, nearest
from .session import ModelError

__version__ = "0.1.0"

__all__ = ["FeatureExtractor", "Gallery", "GalleryError", "Hit", "ImageError", "ModelError", "Nearest", "Outputs",
           "Preprocessing", "SearchError", "nearest"]
