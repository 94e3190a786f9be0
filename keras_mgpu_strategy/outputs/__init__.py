"""Where results go: one back end per file, behind `outputs.interface`."""
