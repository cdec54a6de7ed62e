"""Kubernetes.  `backend.py` is the door: to pods of our own (`spec.py`), or into somebody else's (`beside.py`)."""
