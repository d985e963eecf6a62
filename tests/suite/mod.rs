mod access;
mod cli;
mod door;
mod identity;
mod memory;
mod queue;
mod support;
