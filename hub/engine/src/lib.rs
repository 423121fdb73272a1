//! An embeddable NATS server: codec, accounts, permissions, routing. Knows nothing of Choria.
