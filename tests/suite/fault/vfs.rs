//! A file system that fails on demand: SQLite's own, with faults in the directories of which a test says so.
//!
//! It becomes the default of the process. The files of every other directory are opened by SQLite's own alone.
#![expect(unsafe_code, reason = "SQLite asks for C functions")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use rusqlite::ffi;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is written: there is no room.
    Full,
    /// Nothing is written: the device fails.
    Write,
    /// The first half is written, then the device fails.
    ShortWrite,
    /// All is written and none of it brought to the disk.
    Sync,
    /// Nothing is read.
    Read,
    /// The file system takes no writes.
    ReadOnly,
}

impl Fault {
    /// Those that meet who writes.
    pub(super) const OF_WRITES: [Self; 5] = [Self::Full, Self::Write, Self::ShortWrite, Self::Sync, Self::ReadOnly];
    const ALL: [Self; 6] = [Self::Full, Self::Write, Self::ShortWrite, Self::Sync, Self::ReadOnly, Self::Read];
}

/// The files that SQLite keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The database, into which the log is copied.
    Database,
    /// The write-ahead log, to which commits go.
    Log,
    /// Others.
    Other,
}

/// The faults of a directory.
#[derive(Default)]
pub(super) struct Faults {
    /// The one file that they meet, counted from 1; 0 for all.
    only: AtomicU8,
    /// How many operations have ever failed, by file.
    ever_met: [AtomicU64; 3],
    /// Which, by its place in [`Fault::ALL`], counted from 1; 0 for none.
    fault: AtomicU8,
    /// How many operations still succeed.
    spared: AtomicI64,
    /// How many have failed.
    met: AtomicU64,
}

impl Faults {
    /// Lets operations fail once `spared` of them have succeeded.
    pub(super) fn begin(&self, fault: Fault, spared: i64) {
        self.only.store(0, Ordering::SeqCst);
        self.begin_any(fault, spared);
    }

    /// As [`Faults::begin`], of this file alone.
    pub(super) fn begin_of(&self, kept: Kept, fault: Fault, spared: i64) {
        self.only.store(kept as u8 + 1, Ordering::SeqCst);
        self.begin_any(fault, spared);
    }

    /// How many operations on this file have failed so far, by all faults.
    pub(super) fn ever_met(&self, kept: Kept) -> u64 {
        self.ever_met[kept as usize].load(Ordering::SeqCst)
    }

    fn begin_any(&self, fault: Fault, spared: i64) {
        let place = Fault::ALL.iter().position(|known| *known == fault).unwrap();
        self.spared.store(spared, Ordering::SeqCst);
        self.fault.store(u8::try_from(place + 1).unwrap(), Ordering::SeqCst);
    }

    /// Lets all succeed again, and gives how many have failed since the beginning.
    pub(super) fn end(&self) -> u64 {
        self.fault.store(0, Ordering::SeqCst);
        self.met.swap(0, Ordering::SeqCst)
    }

    /// The fault that meets the next operation of this kind.
    fn meets(&self, kept: Kept, kind: &[Fault]) -> Option<Fault> {
        let place = usize::from(self.fault.load(Ordering::SeqCst)).checked_sub(1)?;
        let fault = Fault::ALL[place];
        let is_spared = ![0, kept as u8 + 1].contains(&self.only.load(Ordering::SeqCst));
        if is_spared || !kind.contains(&fault) || self.spared.fetch_sub(1, Ordering::SeqCst) > 0 {
            return None;
        }
        self.met.fetch_add(1, Ordering::SeqCst);
        self.ever_met[kept as usize].fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }
}

/// Directories with faults.
static SCOPES: Mutex<Vec<(String, &'static Faults)>> = Mutex::new(Vec::new());

/// Puts the files of a directory, to be opened from now on, under faults.
pub(super) fn watch(directory: &Path) -> &'static Faults {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
    let faults: &'static Faults = Box::leak(Box::default());
    let scope = std::fs::canonicalize(directory).unwrap().to_str().unwrap().to_owned();
    SCOPES.lock().unwrap().push((scope + "/", faults));
    faults
}

/// What stands behind SQLite's own part of an open file.
struct Beside {
    faults: &'static Faults,
    kept: Kept,
    methods: &'static ffi::sqlite3_io_methods,
}

/// SQLite's own file system, and where our part of a file begins.
struct Own {
    vfs: *mut ffi::sqlite3_vfs,
    offset: usize,
}

// SAFETY: SQLite's own file system lives as long as the process and may be called by any thread.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

static OWN: std::sync::OnceLock<Own> = std::sync::OnceLock::new();

fn register() {
    // SAFETY: the default file system is there once SQLite is initialised; the copy is leaked, so it lives as long as the
    // process. Of its functions only xOpen is ours, all others are SQLite's and take any pointer for themselves.
    unsafe {
        assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
        let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
        assert!(!vfs.is_null());
        let mut copy = *vfs;
        let offset = usize::try_from(copy.szOsFile).unwrap().next_multiple_of(align_of::<Beside>());
        assert!(OWN.set(Own { vfs, offset }).is_ok());
        copy.szOsFile = c_int::try_from(offset + size_of::<Beside>()).unwrap();
        copy.zName = c"faulty".as_ptr();
        copy.xOpen = Some(open);
        assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(copy)), 1), ffi::SQLITE_OK);
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let own = OWN.get().unwrap();
    // SAFETY: the arguments are SQLite's; the file has room for its own part and, behind it, for ours.
    unsafe {
        let code = (*own.vfs).xOpen.unwrap()(own.vfs, name, file, flags, out);
        if code != ffi::SQLITE_OK || name.is_null() {
            return code;
        }
        let path = CStr::from_ptr(name).to_string_lossy();
        let scopes = SCOPES.lock().unwrap();
        if let Some((_, faults)) = scopes.iter().find(|(scope, _)| path.starts_with(scope)) {
            let methods: &'static ffi::sqlite3_io_methods = &*(*file).pMethods;
            let kept = match flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) {
                ffi::SQLITE_OPEN_MAIN_DB => Kept::Database,
                ffi::SQLITE_OPEN_WAL => Kept::Log,
                _ => Kept::Other,
            };
            file.byte_add(own.offset).cast::<Beside>().write(Beside { faults, kept, methods });
            let mut ours = *methods;
            ours.xRead = Some(read);
            ours.xWrite = Some(write);
            ours.xSync = Some(sync);
            ours.xTruncate = Some(truncate);
            (*file).pMethods = Box::leak(Box::new(ours));
        }
        code
    }
}

/// Our part of an open file.
///
/// # Safety
/// The file was opened by [`open`] in a directory with faults.
unsafe fn beside<'f>(file: *mut ffi::sqlite3_file) -> &'f Beside {
    // SAFETY: `open` has written it there, and it stays as long as the file is open.
    unsafe { &*file.byte_add(OWN.get().unwrap().offset).cast::<Beside>() }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, count: c_int, offset: i64) -> c_int {
    // SAFETY: the arguments are SQLite's.
    unsafe {
        let beside = beside(file);
        match beside.faults.meets(beside.kept, &[Fault::Read]) {
            Some(_) => ffi::SQLITE_IOERR_READ,
            None => beside.methods.xRead.unwrap()(file, into, count, offset),
        }
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, count: c_int, offset: i64) -> c_int {
    // SAFETY: the arguments are SQLite's; half of a buffer is in it.
    unsafe {
        let beside = beside(file);
        let write = beside.methods.xWrite.unwrap();
        match beside.faults.meets(beside.kept, &[Fault::Full, Fault::Write, Fault::ShortWrite, Fault::ReadOnly]) {
            None => write(file, from, count, offset),
            Some(Fault::Full) => ffi::SQLITE_FULL,
            Some(Fault::ReadOnly) => ffi::SQLITE_READONLY,
            Some(Fault::ShortWrite) => {
                write(file, from, count / 2, offset);
                ffi::SQLITE_IOERR_WRITE
            }
            Some(_) => ffi::SQLITE_IOERR_WRITE,
        }
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's.
    unsafe {
        let beside = beside(file);
        match beside.faults.meets(beside.kept, &[Fault::Sync]) {
            Some(_) => ffi::SQLITE_IOERR_FSYNC,
            None => beside.methods.xSync.unwrap()(file, flags),
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: the arguments are SQLite's.
    unsafe {
        let beside = beside(file);
        match beside.faults.meets(beside.kept, &[Fault::Write, Fault::ShortWrite, Fault::ReadOnly]) {
            Some(_) => ffi::SQLITE_IOERR_TRUNCATE,
            None => beside.methods.xTruncate.unwrap()(file, size),
        }
    }
}
