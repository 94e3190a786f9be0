"""Files of saved models, looked at before Keras or TensorFlow reads them."""
