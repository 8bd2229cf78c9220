"""Free TCP ports on the loopback address.

Owns: the choice. It cannot reserve: between the choice and the server's bind another process may take the port, so
free ports are drawn from below the range that systems give to outgoing connections, at random.
"""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 29_999
ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen there now, on this address and on all of them."""
    for host in (HOST, ""):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def free_port(preferred: int | None = None) -> int:
    """The preferred port when nobody has it, else any free one."""
    if preferred is not None and is_free(preferred):
        return preferred
    draw = random.SystemRandom()
    for _ in range(ATTEMPTS):
        port = draw.randint(FIRST, LAST)
        if is_free(port):
            return port
    message = f"no free TCP port found between {FIRST} and {LAST} after {ATTEMPTS} tries"
    raise OSError(message)
