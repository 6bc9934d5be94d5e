"""What runs inside the model servers, in environments of their own: NumPy, ONNX Runtime and tokenizers, no corewrite."""
