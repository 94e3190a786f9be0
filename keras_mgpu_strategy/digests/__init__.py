"""Short names for values, for code, and for what belongs to whom."""
