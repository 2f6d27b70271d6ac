"""What an operator sees: traces, structured logs, timings, and the server in a terminal."""
