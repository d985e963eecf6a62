//! What is to be had by C alone, sqlite-vec, the place of SQLite's temporary files, and whether a file is open elsewhere: the only
//! unsafe code of the program.

use std::ffi::CString;
use std::fs::File;
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

/// Whether nobody else has `file` open, as far as this machine knows. Linux lends a file for writing under that condition
/// alone; the loan is returned at once. False where it cannot be told.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "leases are asked for by fcntl, for which rustix has no function")]
pub(super) fn is_open_here_alone(file: &File) -> bool {
    use std::ffi::c_int;
    use std::os::fd::AsRawFd;
    // Of asm-generic/fcntl.h; libc does not name it.
    const F_SETSIG: c_int = 10;
    let told = |what: c_int, number: c_int| {
        // SAFETY: the descriptor is open as long as `file` is; each of these takes a number and writes to no memory of ours.
        unsafe { libc::fcntl(file.as_raw_fd(), what, number) == 0 }
    };
    // Who opens it just then has the loan called in by a signal: by one that ends no process.
    told(F_SETSIG, libc::SIGURG) && told(libc::F_SETLEASE, libc::F_WRLCK) && told(libc::F_SETLEASE, libc::F_UNLCK)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_open_here_alone(_file: &File) -> bool {
    false
}
