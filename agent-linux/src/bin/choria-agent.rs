//! The stand-alone agent of a fleet node.
fn main() {}
