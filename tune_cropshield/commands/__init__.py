"""One module per command: HELP (a line), DESCRIPTION, its arguments, and `run(args)`, which returns the exit code."""
