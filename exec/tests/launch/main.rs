//! Containers that really run. All of this needs root and a static busybox; without them every test skips out loud.

mod harness;
mod lifecycle;
mod mounts;
mod process;
mod sandbox;
mod sys;
