"""Evaluations: generated tasks whose answers are known exactly."""
