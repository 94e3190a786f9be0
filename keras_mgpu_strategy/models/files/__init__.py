"""Files of saved models, checked before Keras or TensorFlow reads them."""
