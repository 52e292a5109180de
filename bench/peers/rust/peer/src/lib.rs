//! What the peers in Rust share: everything but the runtime and the way that bytes reach it.

pub mod http;
pub mod kafka;
pub mod process;
pub mod settings;
pub mod statistics;
pub mod tcp;
