//! What the data directory of a container stands on: only a volume with a name outlives the container and is found by the
//! next one.

use std::path::{Path, PathBuf};

use anyhow::bail;
use tallybox::config::Environment;

/// The image sets it. A program on a machine of its own keeps its data wherever its directory is.
const MARKER: &str = "TALLYBOX_IN_CONTAINER";
/// What the kernel tells this process of its mounts, one a line.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Digits of the name that Docker and Podman give to a volume that nobody named.
const NAMELESS_DIGITS: usize = 64;

/// In a container, warns where the data directory is on no volume that lasts.
///
/// # Errors
/// Where it is on none and `is_required`.
pub(super) fn look(directory: &Path, environment: &Environment, is_required: bool) -> anyhow::Result<()> {
    if environment.get(MARKER).is_none() {
        return Ok(());
    }
    let place = std::fs::canonicalize(directory).or_else(|_| std::path::absolute(directory))?;
    let standing = std::fs::read_to_string(MOUNTS).map_or(Standing::Unknown, |mounts| standing_of(&place, &mounts));
    let Some(fault) = standing.fault(directory) else { return Ok(()) };
    if is_required {
        bail!("{fault} The setting server.require_volume forbids that.");
    }
    tracing::warn!("{fault}");
    Ok(())
}

/// What a directory stands on.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Something mounted from outside, which lasts.
    Volume,
    /// A volume that the container's engine made because none was named.
    Nameless,
    /// Main memory.
    Memory,
    /// The container's own files.
    Container,
    /// The kernel does not tell.
    Unknown,
}

impl Standing {
    /// What is wrong with it, and what to do.
    fn fault(&self, directory: &Path) -> Option<String> {
        let place = directory.display();
        let what = match self {
            Self::Volume => return None,
            Self::Nameless => format!(
                "NO VOLUME was named for {place}: another container will not find what is stored in this one, and --rm \
                 deletes it."
            ),
            Self::Memory => {
                format!("NO VOLUME is at {place}, but main memory: what is stored is lost at the next stop.")
            }
            Self::Container => format!("NO VOLUME is at {place}: what is stored is lost with this container."),
            Self::Unknown => format!("It cannot be told whether a volume is at {place}: {MOUNTS} cannot be read."),
        };
        Some(format!("{what} Start the container with one, such as -v tallybox:{place}."))
    }
}

/// Finds the innermost mount that holds `place`. Of two at the same point the later one hides the other.
fn standing_of(place: &Path, mounts: &str) -> Standing {
    let mounts = mounts.lines().filter_map(Mount::parse).filter(|mount| place.starts_with(&mount.point));
    let Some(mount) = mounts.max_by_key(|mount| mount.point.components().count()) else { return Standing::Unknown };
    if ["tmpfs", "ramfs"].contains(&mount.kind) {
        return Standing::Memory;
    }
    if mount.point == Path::new("/") {
        return Standing::Container;
    }
    let parts: Vec<&str> = mount.root.split('/').collect();
    let is_nameless = parts.windows(3).any(|parts| {
        let [above, name, below] = parts else { return false };
        let is_made_up = name.len() == NAMELESS_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        *above == "volumes" && *below == "_data" && is_made_up
    });
    if is_nameless { Standing::Nameless } else { Standing::Volume }
}

/// A line of the kernel's list of mounts.
struct Mount<'l> {
    /// The directory of its file system that is mounted.
    root: &'l str,
    /// Where.
    point: PathBuf,
    /// The file system's name.
    kind: &'l str,
}

impl<'l> Mount<'l> {
    fn parse(line: &'l str) -> Option<Self> {
        let (place, source) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let point = point.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\012", "\n").replace(r"\134", r"\");
        Some(Self { root, point: PathBuf::from(point), kind: source.split(' ').next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "520 480 0:53 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b\n\
                        521 520 0:56 / /proc rw,nosuid - proc proc rw\n\
                        522 520 0:57 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k\n";

    fn standing(place: &str, more: &str) -> Standing {
        standing_of(Path::new(place), &format!("{ROOT}{more}"))
    }

    #[test]
    fn a_named_volume_and_a_folder_of_the_machine_last() {
        let named =
            "530 520 254:0 /var/lib/docker/volumes/tallybox/_data /data rw,relatime master:1 - ext4 /dev/vda rw\n";
        assert_eq!(standing("/data", named), Standing::Volume);
        assert_eq!(standing("/data/box", named), Standing::Volume);
        let folder = "530 520 254:0 /srv/my\\040box /data\\040here rw,relatime - ext4 /dev/vda rw\n";
        assert_eq!(standing("/data here", folder), Standing::Volume);
        // A disk of its own: its root is mounted.
        assert_eq!(standing("/data", "530 520 254:16 / /data rw - xfs /dev/vdb rw\n"), Standing::Volume);
    }

    #[test]
    fn a_volume_without_a_name_is_told_from_one_with_a_name() {
        let id = "3f".repeat(32);
        for above in ["/var/lib/docker", "", "/home/ada/.local/share/containers/storage"] {
            let line = format!("530 520 254:0 {above}/volumes/{id}/_data /data rw master:1 - ext4 /dev/vda rw\n");
            assert_eq!(standing("/data", &line), Standing::Nameless);
            let named = line.replace(&id, &id[1..]);
            assert_eq!(standing("/data", &named), Standing::Volume);
        }
    }

    #[test]
    fn the_containers_own_files_and_main_memory_do_not_last() {
        assert_eq!(standing("/data", ""), Standing::Container);
        assert_eq!(standing("/data", "530 520 254:0 /srv /database rw - ext4 /dev/vda rw\n"), Standing::Container);
        assert_eq!(standing("/dev/box", ""), Standing::Memory);
        assert_eq!(standing("/data", "530 520 0:60 / /data rw - tmpfs tmpfs rw\n"), Standing::Memory);
        // The later mount of a point hides the one before it.
        let both = "530 520 254:0 /srv /data rw - ext4 /dev/vda rw\n531 530 0:60 / /data rw - tmpfs tmpfs rw\n";
        assert_eq!(standing("/data", both), Standing::Memory);
        assert_eq!(standing_of(Path::new("/data"), "no mounts"), Standing::Unknown);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn only_a_container_is_asked_for_a_volume() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let outside = Environment::default();
        look(directory.path(), &outside, true).unwrap();
        let inside = Environment([(MARKER.to_owned(), "1".to_owned())].into());
        look(directory.path(), &inside, false).unwrap();
        let refusal = look(directory.path(), &inside, true).unwrap_err().to_string();
        assert!(refusal.contains("main memory") && refusal.contains("server.require_volume"), "{refusal}");
    }
}
