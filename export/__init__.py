"""Export: two trained towers to ONNX files that take raw features."""
