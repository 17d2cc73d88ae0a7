"""What user code touches: tasks, options, runs, the current run, and the client of a server."""
