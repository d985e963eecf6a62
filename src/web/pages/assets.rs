//! The files that pages load.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use crate::domain::Error;
use crate::web::extract::Path;
use crate::web::problem::Answer;

/// A file inside the program.
struct Asset {
    name: &'static str,
    media: &'static str,
    bytes: &'static [u8],
}

const SVG: &str = "image/svg+xml";
const ASSETS: [Asset; 4] = [
    Asset {
        name: "tallybox.css",
        media: "text/css; charset=utf-8",
        bytes: include_bytes!("../../../assets/tallybox.css"),
    },
    Asset { name: "favicon.svg", media: SVG, bytes: include_bytes!("../../../assets/favicon.svg") },
    Asset { name: "logo.svg", media: SVG, bytes: include_bytes!("../../../assets/logo.svg") },
    Asset { name: "logo-dark.svg", media: SVG, bytes: include_bytes!("../../../assets/logo-dark.svg") },
];

/// The hash of each file's content, in the order of the files.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |asset: &Asset| {
        let hash: [u8; 32] = Sha256::digest(asset.bytes).into();
        format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash))
    };
    ASSETS.iter().map(tag).collect()
});

/// `GET /assets/{name}`
pub(in crate::web) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let found = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.name == name);
    let (asset, tag) = found.ok_or(Error::NotFound("the file"))?;
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let mut response: Response =
        if is_known { StatusCode::NOT_MODIFIED.into_response() } else { asset.bytes.into_response() };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    Ok(response)
}
