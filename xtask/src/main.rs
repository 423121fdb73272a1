//! Tasks that cargo cannot express.
fn main() {}
