//! Cache keys: what finds an old result, and the parts they are made of so that a difference can be explained.

mod parts;

pub use parts::{Difference, KeyParts, Part, PartValue, PartsError, differences};
