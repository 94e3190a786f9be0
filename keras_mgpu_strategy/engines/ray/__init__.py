"""One process per device, on this machine or on a cluster, by Ray."""
