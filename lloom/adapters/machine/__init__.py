"""This computer: its processes, folders, ports, keys and terminal."""
