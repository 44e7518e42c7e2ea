"""Log-in by an OpenID Connect provider: the protocol, whose account it is, what they may do."""
