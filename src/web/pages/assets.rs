//! The files that pages load.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};

use crate::view::asset;
use crate::web::extract::Path;
use crate::web::problem::no_such_route;
use crate::web::state::AppState;

/// `GET /assets/{name}`
pub(in crate::web) async fn asset(
    State(state): State<AppState>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Response {
    let Some((asset, is_hashed)) = asset::find(&name) else { return no_such_route(State(state), headers).await };
    // What a hashed name holds never changes; a plain one serves whatever the program of the hour carries.
    let keep = if is_hashed { "public, max-age=31536000, immutable" } else { "public, max-age=300" };
    let mut response: Response = asset.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
