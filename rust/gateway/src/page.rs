//! The live page: four files, and what the browser is told to keep to. The numbers are at `/live`.

/// One file of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) text: &'static str,
    pub(crate) content_type: &'static str,
}

/// Nothing from elsewhere, nothing inline, and no form that leads anywhere: a key that is typed in stays in the script.
pub(crate) const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    // After an update of the proxy the script is the new one.
    ("cache-control", "no-cache"),
];

/// The file at this path, if there is one.
pub(crate) fn part(path: &str) -> Option<Part> {
    let (text, content_type) = match path {
        "" => (include_str!("page/index.html"), "text/html; charset=utf-8"),
        "/page/live.css" => (include_str!("page/live.css"), "text/css; charset=utf-8"),
        "/page/live.js" => (include_str!("page/live.js"), "text/javascript; charset=utf-8"),
        "/page/icon.svg" => (include_str!("page/icon.svg"), "image/svg+xml"),
        _ => return None,
    };
    Some(Part { text, content_type })
}
