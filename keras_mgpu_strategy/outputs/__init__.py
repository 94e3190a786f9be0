"""Where results go: one back end a file, behind `sinks.interface`."""
