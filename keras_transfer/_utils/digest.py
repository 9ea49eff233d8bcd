"""Size of the digests of examples."""

from __future__ import annotations

DIGEST_BYTES = 16
