//! Admission to the broker: from a connection's credentials to an account and a permission set.
