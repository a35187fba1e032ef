"""LongBench: 21 public data sets of real texts (Bai et al. 2023, arXiv 2308.14508), read from its own files."""
