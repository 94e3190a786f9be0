"""File formats: a folder for each, with its reader and its writer side by side."""
