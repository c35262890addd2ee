"""Why there is no connection to a server, in words for the agent's log."""

from __future__ import annotations

import ssl

from websockets.exceptions import ConnectionClosed, InvalidStatus

from moorage.trust import complaint

STANDBY = 1013
"""Close code of a server that does not lead; the reason is the address of the leader, if any."""


def reason_of(error: Exception) -> str:
    """One line, with what to do about it where that is known."""
    if isinstance(error, InvalidStatus):
        code = error.response.status_code
        if code in (401, 403):
            return f"it refuses this node's token (status {code}); register the node again"
        return f"it answers with status {code}"
    if isinstance(error, ConnectionClosed):
        if error.rcvd and error.rcvd.code == STANDBY:
            return f"it does not lead; {error.rcvd.reason or 'nobody does at present'}"
        return (error.rcvd.reason if error.rcvd else "") or "the connection broke"
    if isinstance(error, ssl.SSLError):
        return complaint(error)
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
