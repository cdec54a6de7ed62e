package gateway.authn

# METADATA
# title: Passwords
# description: |
#   A password counts when the way of verifying that policy named found it right.  The password itself is never seen
#   here.  It may also be asked for over keyboard-interactive, for clients that know nothing else.
password_kinds := {"vault_password", "argon2", "webhook"}

_factor(attempt) := "password" if {
	_person
	attempt.method in {"password", "keyboard-interactive"}
	attempt.proven == true
	attempt.verified == true
	attempt.verified_by in password_kinds
	attempt.verified_by == _verification_for("password").kind
	_is_of_whom_was_asked_for(attempt, "password")
	_is_authorized(attempt, "password")
}

# A webhook's server says whom it authenticated, which may be another than was asked for: the owner of a token that was
# given as the password, for example.
_is_of_whom_was_asked_for(_, factor) if _verification_for(factor).kind != "webhook"

_is_of_whom_was_asked_for(attempt, factor) if attempt.claims.authenticated_username == _verification_for(factor).username

# Where policy has a webhook's /authz asked as well, its no is a no.
_is_authorized(_, factor) if object.get(_verification_for(factor), "authz", false) == false

_is_authorized(attempt, _) if attempt.claims.authz == true

# Of everybody, known or not, and whether or not their chain has a password: so all take the same path.
_factor_to_verify := "password" if {
	input.attempt.method == "password"
	_may_come_now("password")
}
