"""From params.json to a trained network: losses, optimiser, the loop, runs, and the ONNX file."""
