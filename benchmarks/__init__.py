"""Measurements that print ratios from one run. `make bench` runs them all."""
