//! The real command in a sealed world: own store, own home, real tools. Needs root, FUSE and the Debian packages
//! `tests/check.sh` installs; what is missing fails loudly.

mod architecture;
mod bad_input;
mod bake;
mod cli_surface;
mod crash;
mod devices;
mod dockerfile;
mod env;
mod foreign;
mod gc;
mod leftovers;
mod lifecycle;
mod limits;
mod lock;
mod modes;
mod mounts;
mod network;
mod power;
mod repositories;
mod road;
mod rootless;
mod roots;
mod scheduling;
mod sources;
mod ssh;
mod steps;
mod store_commands;
mod terminal;
mod together;
mod users;
mod web;
mod why;
