//! What every Choria process on a Linux host shares: settings files, private files, TLS, clock, Rego.
