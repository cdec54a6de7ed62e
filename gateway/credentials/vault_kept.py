"""What Vault keeps only while it is asked to: when it ends, and why it could not be kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gateway.errors import CredentialsUnavailable

log = logging.getLogger(__name__)

CAPPED = "it has reached the longest life that Vault allows it"


class Kept:
    """Something that lives until `ends` (on the monotonic clock) unless renewed."""

    def __init__(self, what: str, renew: Callable[[], int], *, asks: int, began: float, seconds: int) -> None:
        self.what = what
        self.ends = began + seconds  # Vault counted from later, so `ends` is never too late
        self.is_failing = False
        self.is_capped = False
        self.why = CAPPED
        self._asks = asks
        self._renew = renew
        self._margin = min(5.0, asks / 5, seconds / 5)

    def left(self) -> float:
        """Seconds until it must be given up: while it still works, so that the person can be told."""
        return self.ends - self._margin - time.monotonic()

    def extend(self) -> None:
        """Renew, on a thread.  While Vault fails, `ends` stays what it is."""
        if self.is_capped:
            return
        began = time.monotonic()
        try:
            seconds = self._renew()
        except CredentialsUnavailable as error:
            if not self.is_failing:  # told once, tried until it works or the end has come
                log.warning("vault_renewal_failed", extra={"what": self.what, "cause": str(error.__cause__)})
            self.is_failing = True
            self.why = "Vault did not renew it in time"
            return
        self.is_failing = False
        self.is_capped = seconds < self._asks and began + seconds < self.ends + 1
        self.ends = began + seconds
        self.why = CAPPED if seconds else "it was revoked"
