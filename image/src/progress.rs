//! How far transfers and exports are.

/// One thing on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// What it is, such as `sha256:…` or `exporting layers`. One id belongs to one thing until it is done.
    pub id: &'a str,
    /// What happens to it, such as `downloading`.
    pub action: &'static str,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all; zero when unknown.
    pub total: u64,
    /// Whether it is over.
    pub is_done: bool,
}

/// Hears about statuses, from any thread, often: it must not block.
pub trait Progress: Send + Sync {
    /// Called when something starts, moves on, or ends.
    fn status(&self, status: Status<'_>);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn status(&self, _: Status<'_>) {}
}
