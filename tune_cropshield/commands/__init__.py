"""One module per command: `run(args)` does it and returns the exit code."""
