"""Real hosts behind the gateway.  `backend.py` is the door; `login.py` proves who the gateway is there."""
