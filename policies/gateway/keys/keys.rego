# METADATA
# title: Keys
# description: Public keys as they stand in an authorized_keys line, `type base64 comment`, and how much one is worth.
package gateway.keys

# METADATA
# description: What identifies a key, its type and its base64; the comment does not.  Undefined for what is no key line.
material(line) := {"type": words[0], "base64": words[1]} if {
	is_string(line)
	words := regex.split(`\s+`, trim_space(line))
	count(words) > 1
}

# METADATA
# description: Whether the key is of a kind, and of a size, that may open the door.
is_strong(key) if material(key.public_key).type in _strong_types

is_strong(key) if {
	material(key.public_key).type == "ssh-rsa"
	is_number(key.bits)
	key.bits >= 3072
}

# METADATA
# description: |
#   Whether the key is of a kind that is known to be too weak, whoever holds it.
#   RSA of an unknown size counts as weak.
is_weak(key) if {
	material(key.public_key).type in {"ssh-rsa", "ssh-dss"}
	not is_strong(key)
}

_strong_types := {
	"ssh-ed25519",
	"ecdsa-sha2-nistp256",
	"ecdsa-sha2-nistp384",
	"ecdsa-sha2-nistp521",
	"sk-ssh-ed25519@openssh.com",
	"sk-ecdsa-sha2-nistp256@openssh.com",
}
