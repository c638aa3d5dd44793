//! How fast encoding goes: in slices, so that a long text neither holds up what shares its thread nor is encoded beyond what is wanted.

use std::fmt;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::TextError;

/// Lets others run; resolves when it is this encoding's turn again.
type Pause<'p> = &'p dyn Fn() -> LocalBoxFuture<'static, ()>;

/// The pace of one encoding: after each slice of steps it pauses, and beyond a number of tokens it ends. A step is what a character, a
/// merge or a word takes: some hundred nanoseconds. The tokens do not depend on the pace.
pub struct Pace<'p> {
    pause: Option<Pause<'p>>,
    slice: usize,
    /// Steps of this slice that are left; below zero what was done in one go beyond it.
    left: isize,
    limit: usize,
}

impl fmt::Debug for Pace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("slice", &self.slice).field("left", &self.left).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<'p> Pace<'p> {
    /// Steps of a slice for serving: one to three milliseconds.
    pub const SLICE: usize = 1 << 14;

    /// Pauses after each `slice` of steps, and fails with [`TextError::TooLong`] once there are more than `limit` tokens.
    pub fn slices(slice: usize, limit: usize, pause: Pause<'p>) -> Self {
        Self { pause: Some(pause), slice: slice.max(1), left: slice.max(1) as isize, limit }
    }

    /// Notes `steps` of work, and pauses for each slice that is used up.
    pub(super) async fn work(&mut self, steps: usize) {
        self.left = self.left.saturating_sub_unsigned(steps);
        if self.left <= 0
            && let Some(pause) = self.pause
        {
            while self.left <= 0 {
                pause().await;
                self.left += self.slice as isize;
            }
        }
    }

    /// Fails when `tokens`, which the text has at least, are too many.
    ///
    /// # Errors
    /// [`TextError::TooLong`].
    pub(super) fn check(&self, tokens: usize) -> Result<(), TextError> {
        if tokens > self.limit { Err(TextError::TooLong { tokens }) } else { Ok(()) }
    }
}

/// Does all of an encoding at once.
pub(super) fn at_once<T>(encoding: impl AsyncFnOnce(&mut Pace<'_>) -> T) -> T {
    let mut pace = Pace { pause: None, slice: 1, left: isize::MAX, limit: usize::MAX };
    encoding(&mut pace).now_or_never().expect("an encoding only waits in pauses")
}
