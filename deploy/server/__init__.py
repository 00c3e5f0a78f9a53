"""A model over HTTP: images and tensors in, embeddings and nearest gallery images out."""
