//! Recursion into trees as deep as anyone makes them.

/// Stack that one level of any recursion here needs at most, with much to spare.
const ENOUGH: usize = 128 << 10;
/// Stack added at once.
const MORE: usize = 2 << 20;

/// Runs one level of a recursion over a tree, on more stack when little is left: a tree may be deeper than the stack of
/// the thread that happens to work on it.
pub(crate) fn deep<T>(level: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(ENOUGH, MORE, level)
}
