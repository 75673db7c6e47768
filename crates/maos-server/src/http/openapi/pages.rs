//! `/docs` and `/redoc`: the description to try out and to read, without a network.
//!
//! Everything that the pages load comes from here; the policy in their header lets nothing else in.

use axum::body::Body;
use axum::extract::Path;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use maos_api::error::{ApiError, ErrorCode};

use crate::http::answer::Failed;

/// What the pages load.
pub(in crate::http) const ASSET: &str = "/docs/assets/{name}";

/// Both pages set styles on elements; one of them searches in a worker that it makes itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

macro_rules! asset {
    ($name:literal) => {
        include_bytes!(concat!("../../../assets/docs/", $name))
    };
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type, content, whether that is compressed.
const ASSETS: [(&str, &str, &[u8], bool); 5] = [
    ("swagger-ui-bundle.js", JAVASCRIPT, asset!("swagger-ui-bundle.js.gz"), true),
    ("swagger-ui.css", "text/css; charset=utf-8", asset!("swagger-ui.css.gz"), true),
    ("redoc.standalone.js", JAVASCRIPT, asset!("redoc.standalone.js.gz"), true),
    ("docs.js", JAVASCRIPT, asset!("docs.js"), false),
    ("redoc.js", JAVASCRIPT, asset!("redoc.js"), false),
];

pub(in crate::http) async fn docs() -> Response {
    page(asset!("docs.html"))
}

pub(in crate::http) async fn redoc() -> Response {
    page(asset!("redoc.html"))
}

fn page(html: &'static [u8]) -> Response {
    let mut response = written(html, "text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// Every browser takes gzip, and so does whoever does not say what it takes: plain copies would
/// only make the binary larger.
pub(in crate::http) async fn asset(Path(name): Path<String>) -> Response {
    let Some((_, kind, content, compressed)) = ASSETS.into_iter().find(|asset| asset.0 == name)
    else {
        let message = format!("the pages have no asset `{name}`");
        return Failed(ApiError::new(ErrorCode::PathNotFound, message)).into_response();
    };
    let mut response = written(content, kind);
    if compressed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn written(content: &'static [u8], kind: &'static str) -> Response {
    let mut response = Response::new(Body::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
