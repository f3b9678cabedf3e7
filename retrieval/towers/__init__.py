"""ONNX towers: records to vectors."""
