"""A backend that computes no model: benchmarks measure with it what everything around a model costs."""
