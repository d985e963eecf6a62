mod identity;
mod memory;
mod support;
