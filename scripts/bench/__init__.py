"""Measurements, printed as ratios. A benchmark never fails a test run."""
