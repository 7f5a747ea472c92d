//! How much a bench measures.

#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Runs of each measurement.
    pub(crate) rounds: usize,
    /// Only whether it works.
    pub(crate) test: bool,
}

impl Effort {
    /// `full`, or what is enough to see that it works.
    pub(crate) fn or<T>(self, full: T, small: T) -> T {
        if self.test { small } else { full }
    }
}
