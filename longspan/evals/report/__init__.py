"""Evaluations as a page with figures: `longspan eval report`."""
