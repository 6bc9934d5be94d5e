"""What the registry refuses."""


class RegistryError(ValueError):
    """Something the registry refuses or finds damaged; the message names the value and the fix."""


class ConflictError(RegistryError):
    """The champion is not the one the caller saw: read it again and decide anew."""
