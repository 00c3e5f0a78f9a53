"""What ships: from images to embeddings with numpy, pillow and onnxruntime."""

from .extractor import FeatureExtractor, Outputs
from .preprocess import ImageError, Preprocessing
from .session import ModelError

__version__ = "0.1.0"

__all__ = ["FeatureExtractor", "ImageError", "ModelError", "Outputs", "Preprocessing"]
