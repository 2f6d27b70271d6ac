"""Safety and privacy: what may not go in or out. Filters of prompts and of outputs, moderation, and silent logs."""

from .filters import Block, Classifier, Edit, Filter, FilterContext, Finding, MakeFilter, Release

__all__ = ["Block", "Classifier", "Edit", "Filter", "FilterContext", "Finding", "MakeFilter", "Release"]
