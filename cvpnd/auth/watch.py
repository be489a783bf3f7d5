"""Noticing that certificate files changed, and taking them in without ever being worse off.

Polling, because the files are few, may lie on any file system, and are replaced in every possible way: written in
place, renamed over, a symbolic link turned. One `stat` each; a change is a new inode, size or time of modification."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cvpnd.auth.certificate import CertificateTrust, CrlGoesBack
from cvpnd.auth.crl import CrlEdition, CrlSource
from cvpnd.auth.files import CertificateSettings, TrustError

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0

Fingerprint = tuple[tuple[int, int, int, int] | None, ...]


class FileWatch:
    """Tells, by polling, when any of some files changed since it was made. Make it before reading them."""

    def __init__(self, paths: Sequence[Path], interval_s: float = POLL_INTERVAL_S) -> None:
        self._paths = tuple(paths)
        self._interval_s = interval_s
        self._next_poll = float("-inf")
        self._fingerprint = self._take()

    def changed(self, now: float) -> bool:
        """Whether a file differs from what was last seen; each change is told once. At most one look per interval, but
        infinity looks at any time."""
        if now < self._next_poll:
            return False
        if math.isfinite(now):
            self._next_poll = now + self._interval_s
        fingerprint = self._take()
        if fingerprint == self._fingerprint:
            return False
        self._fingerprint = fingerprint
        return True

    def _take(self) -> Fingerprint:
        return tuple(map(_stat, self._paths))


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


class TrustKeeper:
    """One endpoint's current `CertificateTrust`, kept up to date with its files.

    A file that is missing, half written or does not fit the others leaves ``current`` as it was and is logged by name;
    the next change of any of them is another attempt."""

    def __init__(
        self,
        settings: CertificateSettings,
        interval_s: float = POLL_INTERVAL_S,
        before: CertificateTrust | None = None,
        known: Mapping[CrlSource, CrlEdition] = MappingProxyType({}),
    ) -> None:
        """Read the files, in place of what there was before. Raises TrustError: without a good state to begin with
        there is nothing to keep. ``known``: which CRLs were in force of the file, if what there was before had none of
        that name; where there was nothing before, nobody gets in by one that goes back behind them. Who names another
        CRL file may go back behind those of the first, as by that they say what they mean."""
        self._watch = FileWatch(settings.paths, interval_s)
        self.last_error: TrustError | None = None
        """Why the files as they are now are not in use; None when they are."""
        if before is not None and before.settings.crl == settings.crl:
            known = before.lists
        try:
            self.current = CertificateTrust.load(settings, known=known)
        except CrlGoesBack as error:
            if before is not None:
                raise
            self.current = CertificateTrust.load(settings, known=known, crl_problem=error.problem)
            self.last_error = error

    def poll(self, now: float) -> CertificateTrust | None:
        """Reload if a file changed. Returns the trust that was replaced."""
        return self.reload() if self._watch.changed(now) else None

    def reload(self) -> CertificateTrust | None:
        """Reload now. Returns the trust that was replaced, or None when the files cannot be used."""
        old = self.current
        try:
            self.current = old.reload()
        except TrustError as error:
            self.last_error = error
            log.error("%s; the certificates read before stay in use", error)
            return None
        self.last_error = None
        log.info("certificates reloaded from %s", ", ".join(map(str, old.settings.paths)))
        return old
