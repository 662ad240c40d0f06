"""How large a picture may be that anybody hands to a server."""

MAX_UPLOAD = 8 * 2**20
"""Bytes of its file."""

# Each takes some 20 bytes while the picture is resized.
MAX_UPLOAD_PIXELS = 16_000_000
