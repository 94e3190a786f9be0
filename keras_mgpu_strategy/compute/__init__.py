"""From a model to compiled steps, and from their results to the host."""
