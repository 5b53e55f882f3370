//! Solves against a fake executor: what runs, in which order, and what does not.
#![expect(clippy::unwrap_used, reason = "helpers outside #[test] functions may panic too")]

mod ask;
mod cancel;
mod fake;
mod laws;
mod reuse;
mod scale;
mod store;
