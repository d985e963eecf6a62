mod identity;
mod support;
