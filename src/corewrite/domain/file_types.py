"""Files that may run code when they are opened."""

# numpy's own formats too: whether they hold pickled objects is only known to who opens them.
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz"})
CODE = frozenset({".py", ".pyc", ".pyo", ".so"})
