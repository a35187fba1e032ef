"""Foresight: what a model, a context and a machine come to, before anything is loaded."""
