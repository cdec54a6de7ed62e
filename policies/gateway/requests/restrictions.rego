package gateway.requests

import data.gateway.reasons

# METADATA
# title: Restrictions
# description: |
#   What a certificate does not permit, whatever the target allows: the kinds of request that need each permission.
is_restricted(request, identity) if {
	some restriction in identity.restrictions
	request.kind in _restricted[restriction]
}

# METADATA
# description: Why a request that the certificate does not permit is refused.
restriction := reasons.reason(
	"certificate_restricts",
	"Your certificate does not permit this.",
	"Have one signed with the permission; `ssh-keygen -L -f` shows those that it has.",
)

_restricted := {
	"pty": {"pty-req"},
	"port-forwarding": {
		"direct-tcpip", "tcpip-forward", "cancel-tcpip-forward", "direct-streamlocal@openssh.com",
		"streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com", "tun@openssh.com",
	},
	"agent-forwarding": {"auth-agent-req@openssh.com"},
	"X11-forwarding": {"x11-req"},
}

# METADATA
# title: What is closed for now
# description: Whether the request needs one of the kinds that are dropped.
is_dropped(request, dropped) if request.kind in dropped

is_dropped(request, dropped) if {
	request.kind == "subsystem"
	request.name in dropped
}
