"""Calls to what is not ours: each ends in its time and within its size, whatever the other side does.

`corewrite.remote.http` and `corewrite.remote.redis` need an extra, so they are imported where they are used.
"""

from corewrite.remote.budget import Budget, spending
from corewrite.remote.patience import OutOfTimeError, Patience

__all__ = ["Budget", "OutOfTimeError", "Patience", "spending"]
