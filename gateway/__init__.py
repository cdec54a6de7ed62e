"""Doorward: a policy-driven SSH gateway.

Follow one connection: `ssh/server.py` accepts and authenticates it, `session.py` tells its story, `policy/` decides
every step, `credentials/` leases what the permit names, `backends/` start the workspace, `ssh/relay.py` carries the
bytes, `audit/` and `telemetry.py` leave the record.  `app.py` is the only file that names every concrete class.
"""

__version__ = "0.1.0"
