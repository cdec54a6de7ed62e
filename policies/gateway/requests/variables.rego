package gateway.requests

# METADATA
# title: Variables
# description: |
#   Whether the engineer's client may set this environment variable: it matches a glob of the target, and is not one of
#   those that decide which programs run or where they connect.
is_variable_allowed(name, allow) if {
	is_string(name)
	regex.match(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`, name)
	not is_variable_dangerous(name)
	some pattern in allow.env
	_is_pattern(pattern)
	glob.match(pattern, null, name)
}

# METADATA
# description: Whether no target may let this variable in, in whatever case it is written.
is_variable_dangerous(name) if upper(_text(name)) in _dangerous

is_variable_dangerous(name) if {
	some start in _dangerous_starts
	startswith(upper(_text(name)), start)
}

is_variable_dangerous(name) if endswith(upper(_text(name)), "_PROXY")

_text(name) := name if is_string(name)

# A glob that cannot be read would fail the whole decision.
_is_pattern(pattern) if {
	is_string(pattern)
	regex.match(`^[A-Za-z0-9_*?]+$`, pattern)
}

_dangerous := {
	"BROWSER", "CDPATH", "DISPLAY", "EDITOR", "ENV", "FPATH", "GETCONF_DIR", "GLOBIGNORE", "HOME", "HOSTALIASES",
	"IFS", "INPUTRC", "LOCALDOMAIN", "LOCPATH", "LOGNAME", "MAIL", "NLSPATH", "PAGER", "PATH", "PROMPT_COMMAND",
	"PS4", "RESOLV_HOST_CONF", "RES_OPTIONS", "SHELL", "SHELLOPTS", "TERMCAP", "TMPDIR", "TRACEPARENT",
	"TRACESTATE", "USER", "VISUAL", "XAUTHORITY", "ZDOTDIR",
}

_dangerous_starts := {
	# The loader and the C library.
	"DYLD_", "GCONV_", "GLIBC_", "LD_", "MALLOC_",
	# Shells and pagers.
	"BASH", "LESS", "TERMINFO",
	# Languages that load code from where a variable says.
	"CLASSPATH", "JAVA_", "JDK_", "LUA_", "NODE_", "NPM_", "PERL", "PYTHON", "RUBY", "_JAVA_",
	# Clients that connect, or run helpers, as a variable says.
	"AWS_", "CURL_", "DOCKER_", "GIT_", "KUBE", "MYSQL", "OPENSSL_", "OTEL_", "PG", "SSH", "SSL_", "SUDO_", "VAULT_",
	# Our own.
	"DOORWARD_", "XDG_",
}
