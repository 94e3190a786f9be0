"""The command line `mgpu`, over the public API."""
