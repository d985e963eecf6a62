mod cli;
mod door;
mod identity;
mod support;
