"""The engine behind a queue: in a thread, or in a supervised child process."""
