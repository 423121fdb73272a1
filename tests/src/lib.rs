//! Whole-system scenarios with real processes and real peers.
