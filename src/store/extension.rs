//! Registration of sqlite-vec with the SQLite inside: the only unsafe code of the program.

use std::sync::Once;

/// Makes sqlite-vec's functions known to every connection opened afterwards. Safe to call any number of times.
#[expect(unsafe_code, reason = "an extension is registered by a C function pointer; the crate offers no safe way")]
pub(super) fn register() {
    static REGISTERED: Once = Once::new();
    type EntryPoint = unsafe extern "C" fn(
        *mut rusqlite::ffi::sqlite3,
        *mut *mut std::ffi::c_char,
        *const rusqlite::ffi::sqlite3_api_routines,
    ) -> std::ffi::c_int;
    REGISTERED.call_once(|| {
        // SAFETY: sqlite3_vec_init has exactly the signature of an extension's entry point; the crate declares it
        // without arguments. It is linked statically against the same SQLite and lives as long as the program.
        unsafe {
            let entry: EntryPoint =
                std::mem::transmute::<*const (), EntryPoint>(sqlite_vec::sqlite3_vec_init as *const ());
            rusqlite::ffi::sqlite3_auto_extension(Some(entry));
        }
    });
}
