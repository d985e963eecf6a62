//! The files that pages load, inside the program.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file.
#[derive(Debug)]
pub struct Asset {
    /// Its plain name, as `tallybox.css`.
    pub name: &'static str,
    /// Its name with a hash of its content, as `tallybox.1a2b3c4d5e6f.css`: what is at this name never changes.
    pub hashed_name: String,
    /// Its media type.
    pub media: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
}

const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

static ASSETS: LazyLock<[Asset; 5]> = LazyLock::new(|| {
    [
        asset("tallybox.css", CSS, include_bytes!("../../assets/tallybox.css")),
        asset("tallybox.js", SCRIPT, include_bytes!("../../assets/tallybox.js")),
        asset("favicon.svg", SVG, include_bytes!("../../assets/favicon.svg")),
        asset("logo.svg", SVG, include_bytes!("../../assets/logo.svg")),
        asset("logo-dark.svg", SVG, include_bytes!("../../assets/logo-dark.svg")),
    ]
});

fn asset(name: &'static str, media: &'static str, bytes: &'static [u8]) -> Asset {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let hash = u64::from_be_bytes(std::array::from_fn(|index| digest[index])) >> 16;
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    Asset { name, hashed_name: format!("{stem}.{hash:012x}.{extension}"), media, bytes }
}

/// The file of a plain or a hashed name, and whether it was the hashed one.
pub fn find(name: &str) -> Option<(&'static Asset, bool)> {
    let found = ASSETS.iter().find(|asset| asset.name == name || asset.hashed_name == name);
    found.map(|asset| (asset, asset.hashed_name == name))
}

/// Where a page loads the file `name` from.
pub(super) fn path(name: &str) -> String {
    find(name).map_or_else(|| format!("/assets/{name}"), |(asset, _)| format!("/assets/{}", asset.hashed_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_answers_under_both_its_names() {
        let hashed = path("tallybox.css");
        let name = hashed.strip_prefix("/assets/").unwrap();
        assert!(find(name).is_some_and(|(asset, is_hashed)| is_hashed && asset.name == "tallybox.css"), "{name}");
        assert!(find("tallybox.css").is_some_and(|(_, is_hashed)| !is_hashed));
        assert!(find("tallybox.000000000000.css").is_none());
    }
}
