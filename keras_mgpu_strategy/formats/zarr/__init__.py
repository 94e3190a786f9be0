"""zarr arrays."""
