"""The version of the code, stamped on every artifact."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("corewrite")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0+unknown"
