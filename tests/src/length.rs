//! How long a test lasts that could go on for ever.

use std::time::Duration;

/// `CHORIA_TEST_SECONDS`, or 15 seconds.
pub fn test_length() -> Duration {
    let asked = std::env::var("CHORIA_TEST_SECONDS").ok().and_then(|text| text.trim().parse().ok());
    Duration::from_secs(asked.unwrap_or(15))
}
