"""Namespaces of this machine, made by bubblewrap.  `backend.py` is the door."""
