"""A backend for isotoken that runs transformers' own model classes."""
