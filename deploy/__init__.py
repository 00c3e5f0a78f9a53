"""What ships: from images to embeddings with numpy, pillow and onnxruntime."""

__version__ = "0.1.0"
