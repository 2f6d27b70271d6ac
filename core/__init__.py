"""The serving core: requests, batches, scheduling, caching and sampling in integers and numpy; it knows no engine."""
