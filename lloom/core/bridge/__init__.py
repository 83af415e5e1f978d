"""One connection of the bridge without I/O: bytes and times in, events and bytes out."""
