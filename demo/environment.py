"""What of the shell's environment the demo's and the tests' processes may see.

Owns: the choice of variables. Invariants: what a service sees is built from scratch, so that a KAFKA_, AWS_ or proxy
variable which happens to be in the shell cannot send random quotes to somebody's production; AWS profiles and
credential files of the home folder are out of reach. Set-up steps (pip, jgo, go) are not services: they see the
shell as it is, because proxies and certificate authorities are how they reach their registries.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

PASSED_ON = ("PATH", "HOME", "TMPDIR", "TZ")
SHIELD: Mapping[str, str] = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "*",
}
# Every name a setting of the services begins with, and what redirects an HTTP or AWS client.
_LEAKING = re.compile(
    r"(?i)^(AWS|KAFKA|S3|API|BATCH|PUBLISH|POLL|UPLOAD|HTTP|LOG|MEMORY|SHUTDOWN|RECORD)_\w+$"
    r"|^(\w+_)?proxy$|^(SELECT|COMPRESSION(_LEVEL)?|BOTO_CONFIG|SSLKEYLOGFILE)$"
)


def for_service(shell: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a service: the little it needs of the shell, the shield, its settings."""
    passed_on = {name: shell[name] for name in PASSED_ON if name in shell}
    return {**passed_on, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **SHIELD, **settings}


def leaking(names: Iterable[str]) -> list[str]:
    """Those of the names that would change what a service or a client library does."""
    return sorted(name for name in names if _LEAKING.match(name))


def shield(environ: MutableMapping[str, str]) -> None:
    """Take from the environment what could lead this very process astray, in place."""
    for name in leaking(environ):
        del environ[name]
    environ.update(SHIELD)
