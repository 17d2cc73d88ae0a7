"""The same workloads on others' products: one module for each, run by a Python that has it installed."""
