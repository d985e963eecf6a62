//! The room of large files, given back to the disk a little at a time: where a file system frees hundreds of megabytes in one of
//! its own transactions, every commit of the database waits for that one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::foreign::is_open_here_alone;

/// What is freed at once. Freeing 206 MB in one piece had commits wait for up to 60 ms (ext4 mounted with `discard`), in such
/// pieces for 4.
const PIECE_BYTES: u64 = 4 << 20;

/// What has a name that it is about to lose.
pub(super) struct Old(Option<File>);

impl Old {
    /// Takes hold of the file `path`, where there is one. Neither a link nor what is no file is followed.
    pub(super) fn at(path: &Path) -> Self {
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        let open = || OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path).ok();
        Self(is_file.then(open).flatten())
    }

    /// Frees what it holds. Call it once the loss of its name is on the disk: else a file could come back that has been
    /// emptied. What has another name, or is open elsewhere (as one that is being copied away), stays whole for those who
    /// use it.
    pub(super) fn free(self) -> io::Result<()> {
        let Some(file) = self.0 else { return Ok(()) };
        let metadata = file.metadata()?;
        if metadata.nlink() > 0 || !is_this_machines(&file) || !is_open_here_alone(&file) {
            return Ok(());
        }
        let mut bytes = metadata.len();
        while bytes > 0 {
            bytes = bytes.saturating_sub(PIECE_BYTES);
            file.set_len(bytes)?;
            file.sync_all()?;
        }
        Ok(())
    }
}

/// Whether it lies in a file system of this machine's kernel alone: who opens what is shared with others, only they know.
#[cfg(target_os = "linux")]
fn is_this_machines(file: &File) -> bool {
    /// What statfs(2) calls ext4, xfs and btrfs.
    const KNOWN: [i128; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
    rustix::fs::fstatfs(file).is_ok_and(|system| KNOWN.contains(&i128::from(system.f_type)))
}

#[cfg(not(target_os = "linux"))]
fn is_this_machines(_file: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 9 << 20;

    /// What is left of a file of that name that is let go of, as `keep` is in the way or is not.
    fn left<T>(keep: impl FnOnce(&Path) -> T) -> u64 {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("old");
        fs::write(&path, vec![1; BYTES]).unwrap();
        let _kept = keep(&path);
        let old = Old::at(&path);
        // The same opening of it, not another.
        let seen = old.0.as_ref().unwrap().try_clone().unwrap();
        fs::remove_file(&path).unwrap();
        old.free().unwrap();
        seen.metadata().unwrap().len()
    }

    #[test]
    fn what_nobody_has_any_more_is_emptied() {
        let here = File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(left(|_| ()), if is_this_machines(&here) { 0 } else { BYTES as u64 });
    }

    #[test]
    fn what_is_read_elsewhere_or_has_another_name_stays_whole() {
        assert_eq!(left(|path| File::open(path).unwrap()), BYTES as u64);
        assert_eq!(left(|path| fs::hard_link(path, path.with_file_name("other")).unwrap()), BYTES as u64);
    }

    #[test]
    fn a_link_and_what_is_no_file_are_not_taken_hold_of() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "kept").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(Old::at(&link).0.is_none() && Old::at(directory.path()).0.is_none());
        assert!(Old::at(&directory.path().join("none")).0.is_none() && Old::at(Path::new("/dev/null")).0.is_none());
    }
}
