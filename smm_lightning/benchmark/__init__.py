"""Measurements that docs/BENCHMARKS.md reports."""
