//! Keys and tokens on hosts: the only place where private keys sign tokens.
