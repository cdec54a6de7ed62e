package gateway.keys_test

import data.gateway.keys

test_comment_and_blanks_do_not_matter[line] if {
	some line in ["ssh-ed25519 AAAA", " ssh-ed25519  AAAA alice@laptop, the new one\n", "ssh-ed25519\tAAAA x"]
	keys.material(line) == {"type": "ssh-ed25519", "base64": "AAAA"}
}

test_no_key_line_is_undefined[note] if {
	some note, line in {"empty": "", "type alone": "ssh-ed25519", "number": 7, "null": null}
	not keys.material(line)
}

test_worth_of_a_key[note] if {
	some note, tc in {
		"ed25519": {"key": {"public_key": "ssh-ed25519 A", "bits": null}, "worth": "strong"},
		"P-256": {"key": {"public_key": "ecdsa-sha2-nistp256 A", "bits": 256}, "worth": "strong"},
		"security key": {"key": {"public_key": "sk-ssh-ed25519@openssh.com A"}, "worth": "strong"},
		"RSA 3072": {"key": {"public_key": "ssh-rsa A", "bits": 3072}, "worth": "strong"},
		"RSA 3071": {"key": {"public_key": "ssh-rsa A", "bits": 3071}, "worth": "weak"},
		"RSA of unknown size": {"key": {"public_key": "ssh-rsa A", "bits": null}, "worth": "weak"},
		"RSA without a size": {"key": {"public_key": "ssh-rsa A"}, "worth": "weak"},
		"RSA of size in text": {"key": {"public_key": "ssh-rsa A", "bits": "4096"}, "worth": "weak"},
		"DSA": {"key": {"public_key": "ssh-dss A", "bits": 4096}, "worth": "weak"},
		"unheard of": {"key": {"public_key": "ssh-new A", "bits": 4096}, "worth": "none"},
		"no key": {"key": null, "worth": "none"},
	}
	_worth(tc.key) == tc.worth
}

_worth(key) := "strong" if keys.is_strong(key)

_worth(key) := "weak" if keys.is_weak(key)

_worth(key) := "none" if {
	not keys.is_strong(key)
	not keys.is_weak(key)
}
