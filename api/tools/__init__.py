"""Tool calls: what a conversation offers, how each family of models writes its calls, and how they are read again."""
