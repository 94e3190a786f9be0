"""Ways to run a model over rows, interchangeable behind `engines.interface`."""
