"""Docker, and engines that speak its API (Podman).  `backend.py` is the door, `spec.py` what a container may do."""
