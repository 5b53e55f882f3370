//! Talking to a person, on standard error.
//!
//! `eprintln!` panics when nobody can be talked to: a full disk behind a redirection, a closed terminal. A build is not to
//! fail for that.

use std::fmt::Arguments;
use std::io::Write as _;

/// Writes to standard error; that it cannot be written to is nobody's business, since there is nobody to tell.
pub(crate) fn write(text: Arguments<'_>) {
    std::io::stderr().lock().write_fmt(text).unwrap_or_default();
}

/// A line on standard error.
macro_rules! tell {
    ($($words:tt)*) => { $crate::tell::write(format_args!("{}\n", format_args!($($words)*))) };
}
