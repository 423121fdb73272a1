//! Waiting, which is no hang.

use core::pin::Pin;

use embassy_time::{Duration, with_timeout};

use crate::board::Board;

/// `work` within so many seconds, `None` when it takes longer. The watchdog is fed at the beginning, every second and at the
/// end; work that never waits is not interrupted and starves it. Behind a pointer: what waits stands once in memory, not once
/// for each way of waiting.
pub async fn within<B: Board, T>(
    board: &B,
    mut seconds: u32,
    mut work: Pin<&mut dyn Future<Output = T>>,
) -> Option<T> {
    while seconds > 0 {
        seconds -= 1;
        board.feed_watchdog();
        if let Ok(done) = with_timeout(Duration::from_secs(1), work.as_mut()).await {
            board.feed_watchdog();
            return Some(done);
        }
    }
    None
}
