"""`mgpu benchmark`: Keras `predict` beside this package, on the user's machine."""
