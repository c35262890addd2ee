"""Relays: connections to the embedded store for those who are not on the server's machine.

Each connection is a WebSocket, whose messages are bytes, cut anywhere; an empty one of the client
ends what it sends, the end of the WebSocket both directions. What is said inside is S3, signed by
whoever speaks: the relay's two ends only pass it on. The name in its Host header is that of the
end that was asked.
"""

from __future__ import annotations

PATH = "/v1/stores/moorage/relay"
"""For the tokens of users and of nodes."""
PIECE = 262_144
"""Bytes of a message at most."""
AWAY = 1013
"""The WebSocket's code where the store cannot be had now, with the reason."""
