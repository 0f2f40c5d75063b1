"""What a study asks for: configuration, registry, models, cells, and what they cost.

The rules read it: nothing here imports NumPy, pandas, HDF5 or PyTorch as it is loaded.
"""
