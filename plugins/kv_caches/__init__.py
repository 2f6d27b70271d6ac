"""Built-in alternative KV caches."""
