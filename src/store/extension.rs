//! What SQLite takes from C alone, sqlite-vec and the place of its temporary files: the only unsafe code of the program.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

/// Has SQLite keep its temporary files in `directory`, as long as it may write there: a box may have no other place, and what
/// is sorted for `tallybox check` or a backup may be too large for memory, of which `/tmp` is often a part. The first call
/// counts, to be made before any connection is opened.
#[expect(
    unsafe_code,
    reason = "a variable of SQLite; its pragma is deprecated, and the environment belongs to all threads"
)]
pub fn keep_temporary_files_in(directory: &Path) {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let Ok(directory) = CString::new(directory.as_os_str().as_bytes()) else { return };
        // SAFETY: nobody writes it a second time, and nobody reads it before connections are opened, by the contract above.
        // The text lives as long as the program.
        unsafe { rusqlite::ffi::sqlite3_temp_directory = directory.into_raw() };
    });
}
