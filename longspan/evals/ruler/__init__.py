"""RULER: thirteen generated tasks, made anew from their definitions (Hsieh et al. 2024, arXiv 2404.06654)."""
