"""Features of users and items for training and export: fitted, encoded, embedded, written as ONNX nodes."""
