"""Attention: from a model's unrotated queries, keys and values to its output, through the cache."""
