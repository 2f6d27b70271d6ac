"""The reference backend: readable numpy."""
