"""ONNX graph work that no runtime owns: graph, grids, thresholds, weights, placement."""
