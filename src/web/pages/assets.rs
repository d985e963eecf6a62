//! The files that pages load.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use crate::domain::Error;
use crate::view::asset;
use crate::web::extract::Path;
use crate::web::problem::Answer;

/// `GET /assets/{name}`
pub(in crate::web) async fn asset(Path(name): Path<String>) -> Answer {
    let (asset, is_hashed) = asset::find(&name).ok_or(Error::NotFound("the file"))?;
    // What a hashed name holds never changes; a plain one serves whatever the program of the hour carries.
    let keep = if is_hashed { "public, max-age=31536000, immutable" } else { "public, max-age=300" };
    let mut response: Response = asset.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
