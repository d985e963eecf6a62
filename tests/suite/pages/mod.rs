//! Pages behind the door.

mod memory;
