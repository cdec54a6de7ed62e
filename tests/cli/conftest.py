"""Commands are tried at a grants door, as the door's own tests do."""

from tests.door.conftest import door

__all__ = ["door"]
