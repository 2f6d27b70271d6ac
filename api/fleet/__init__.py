"""Several models in one server: versions of them, what they are called, and the memory that they share."""
