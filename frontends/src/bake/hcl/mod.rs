//! The HCL language: reading files in either syntax into one tree of expressions, and evaluating that.
//!
//! ```text
//! native text ── hcl-edit ──► native ─┐
//!                                     ├─► Body ── Evaluator ──► Value
//! JSON text ──── json_text ─► json ───┘
//! ```
//! Nothing here knows what a target is; [`super::program`] does.

pub(crate) mod ast;
pub(crate) mod eval;
pub(crate) mod json;
pub(crate) mod json_text;
pub(crate) mod native;
mod operators;
mod repeated_keys;
pub(crate) mod scope;
mod template;
pub(crate) mod traversal;
pub(crate) mod type_expression;
pub(crate) mod walk;
