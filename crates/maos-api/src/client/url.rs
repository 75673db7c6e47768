//! The server's URL, and what a request appends to it.

use std::fmt::Write as _;

use hyper::Uri;

use super::ClientError;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// A server's URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As it was given, without a slash at its end.
    pub(super) url: String,
    /// Whether it is one of `https://`.
    pub(super) secure: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// For the header `host`.
    pub(super) authority: String,
    /// What every path begins with; empty unless the server is behind a proxy.
    pub(super) prefix: String,
}

impl Address {
    pub(super) fn parse(given: &str) -> Result<Address, ClientError> {
        let bad = |why: &str| ClientError::BadUrl { url: given.to_owned(), why: why.to_owned() };
        let url = given.trim();
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL, as http://host:8000 is"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(bad("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?.clone();
        if authority.as_str().contains('@') {
            return Err(bad("it must hold no user name and no password"));
        }
        if uri.query().is_some() {
            return Err(bad("it must hold no query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.contains(']') => {
                digits.parse().map_err(|_| bad("its port is not a number from 0 to 65535"))?
            }
            Some(_) | None if secure => HTTPS_PORT,
            Some(_) | None => HTTP_PORT,
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let url = url.trim_end_matches('/').to_owned();
        Ok(Address { url, secure, host, port, authority: authority.to_string(), prefix })
    }
}

/// A text as a part of a path or of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// The query of a request, escaped.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(String);

impl Query {
    /// One of these parameters.
    pub(super) fn of(parameters: Vec<(&'static str, String)>) -> Query {
        let parameters = parameters.into_iter();
        parameters.fold(Query::default(), |query, (name, value)| query.with(name, Some(&value)))
    }

    /// The same with one more parameter, if it has a value.
    pub(super) fn with(mut self, name: &str, value: Option<&str>) -> Query {
        let Some(value) = value else { return self };
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&escaped(value));
        self
    }

    pub(super) fn after(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart_into_what_a_request_needs() {
        let parts = |url| {
            let address = Address::parse(url).unwrap();
            (address.host, address.port, address.authority, address.prefix)
        };
        let owned = |host: &str, port, authority: &str, prefix: &str| {
            (host.to_owned(), port, authority.to_owned(), prefix.to_owned())
        };
        assert_eq!(parts("http://127.0.0.1:8000"), owned("127.0.0.1", 8000, "127.0.0.1:8000", ""));
        assert_eq!(parts("http://maos.test/"), owned("maos.test", 80, "maos.test", ""));
        assert_eq!(parts("http://[::1]:9/a/b/"), owned("::1", 9, "[::1]:9", "/a/b"));
        assert_eq!(parts("http://[::1]"), owned("::1", 80, "[::1]", ""));
        assert_eq!(parts("https://maos.test/a"), owned("maos.test", 443, "maos.test", "/a"));
        assert_eq!(parts("https://[::1]:8443"), owned("::1", 8443, "[::1]:8443", ""));
        let secure = |url| Address::parse(url).unwrap().secure;
        assert!(secure("https://maos.test") && secure("HTTPS://h:80") && !secure("http://h:443"));
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_why() {
        for (url, why) in [
            ("127.0.0.1:8000", "must begin with http://"),
            ("localhost", "must begin with http://"),
            ("ftp://maos.test", "must begin with http://"),
            ("http://", "is not a URL"),
            ("http://a b", "is not a URL"),
            ("http://me:secret@maos.test", "no password"),
            ("http://maos.test:99999", "port"),
            ("http://maos.test/?a=1", "no query"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(url), "{url}: {error}");
        }
    }

    #[test]
    fn values_of_a_query_are_escaped() {
        let query = Query::default().with("a", None).with("reason", Some("no & ü/"));
        assert_eq!(
            query.with("page", Some("2")).after("/x"),
            "/x?reason=no%20%26%20%C3%BC%2F&page=2"
        );
        assert_eq!(Query::default().after("/x"), "/x");
    }
}
