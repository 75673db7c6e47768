//! `[blobs]`: where large documents are kept. Who we are there is not said here but in the
//! environment, so that no file and no listing of settings holds a secret.

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Most bytes of a file in a bucket: S3 takes one in 10,000 parts, and each is held in memory.
const FILE_BYTES_MAX: u64 = 600 << 30;
const URL_BYTES_MAX: usize = 512;

/// `[blobs]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Blobs {
    /// `s3://bucket/prefix`; empty: the folder `blobs` of the data directory.
    pub url: String,
    /// Who keeps the bucket, such as `https://minio.example.org:9000`; empty: Amazon.
    pub endpoint: String,
    /// The region of the bucket; empty: `us-east-1`.
    pub region: String,
    /// Whether the endpoint may begin with `http://`.
    pub allow_http: bool,
}

/// What `blobs.url` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket<'a> {
    /// Its name.
    pub name: &'a str,
    /// What all names in it begin with, without slashes around it; may be empty.
    pub prefix: &'a str,
}

impl Blobs {
    /// The bucket that is named, if one is.
    #[must_use]
    pub fn bucket(&self) -> Option<Bucket<'_>> {
        let path = self.url.strip_prefix("s3://")?.trim_end_matches('/');
        let (name, prefix) = path.split_once('/').unwrap_or((path, ""));
        Some(Bucket { name, prefix })
    }

    pub(super) fn check(&self, artifact_bytes_max: u64) -> Result<(), ConfigError> {
        let wrong = |key: &str, found: &str, wanted: &str| {
            let (key, found) = (format!("blobs.{key}"), format!("`{found}`"));
            Err(ConfigError::OutOfBounds { key, found, wanted: wanted.to_owned() })
        };
        if self.url.is_empty() {
            let unused = "empty while `blobs.url` is";
            return match self {
                Blobs { endpoint, .. } if !endpoint.is_empty() => {
                    wrong("endpoint", endpoint, unused)
                }
                Blobs { region, .. } if !region.is_empty() => wrong("region", region, unused),
                Blobs { allow_http: true, .. } => {
                    wrong("allow_http", "true", "false while `blobs.url` is empty")
                }
                _ => Ok(()),
            };
        }
        if self.url.len() > URL_BYTES_MAX || !self.bucket().is_some_and(is_well_named) {
            let wanted = "`s3://bucket` or `s3://bucket/prefix`, of letters, digits and `-_.`, or \
                          empty";
            return wrong("url", &self.url.chars().take(100).collect::<String>(), wanted);
        }
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        if self.region.len() > 64 || !self.region.bytes().all(is_plain) {
            return wrong("region", &self.region, "the name of a region, such as `eu-west-1`");
        }
        if !self.endpoint.is_empty() && !is_endpoint(&self.endpoint) {
            let wanted = "`https://` or `http://`, a host, and perhaps a port";
            // It may hold a password.
            return wrong("endpoint", "another URL", wanted);
        }
        if self.endpoint.starts_with("http://") && !self.allow_http {
            let wanted = "a URL that begins with https://, unless `blobs.allow_http` is true";
            return wrong("endpoint", &self.endpoint, wanted);
        }
        if artifact_bytes_max > FILE_BYTES_MAX {
            let (key, found) =
                ("api.artifact_bytes_max".to_owned(), artifact_bytes_max.to_string());
            let wanted = format!("1 to {FILE_BYTES_MAX} with `blobs.url`");
            return Err(ConfigError::OutOfBounds { key, found, wanted });
        }
        Ok(())
    }
}

fn is_well_named(bucket: Bucket<'_>) -> bool {
    let of = |more: &'static [u8]| move |c: u8| c.is_ascii_alphanumeric() || more.contains(&c);
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(of(b"-_."));
    (3..=63).contains(&bucket.name.len())
        && is_part(bucket.name)
        && (bucket.prefix.is_empty() || bucket.prefix.split('/').all(is_part))
}

fn is_endpoint(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let is_bare = uri.path() == "/" && uri.query().is_none();
    let named = |uri: &Uri| uri.authority().is_some_and(|to| !to.as_str().contains('@'));
    matches!(uri.scheme_str(), Some("http" | "https")) && is_bare && named(&uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, endpoint: &str, region: &str, allow_http: bool) -> Result<(), String> {
        let [url, endpoint, region] = [url, endpoint, region].map(str::to_owned);
        let checked = Blobs { url, endpoint, region, allow_http }.check(1 << 30);
        checked.map_err(|why| why.to_string())
    }

    #[test]
    fn a_bucket_and_who_keeps_it_are_taken() {
        for url in ["s3://maos", "s3://maos/", "s3://my.bucket-1/a/b_c"] {
            check(url, "", "", false).unwrap();
            check(url, "https://s3.example.org", "eu-west-1", false).unwrap();
            check(url, "http://127.0.0.1:9000/", "", true).unwrap();
        }
        check("", "", "", false).unwrap();
        let blobs = Blobs { url: "s3://maos/a/b/".to_owned(), ..Blobs::default() };
        assert_eq!(blobs.bucket(), Some(Bucket { name: "maos", prefix: "a/b" }));
        assert_eq!(Blobs::default().bucket(), None);
    }

    #[test]
    fn what_has_no_meaning_or_no_effect_is_refused() {
        let long = format!("s3://maos/{}", "x".repeat(600));
        for url in ["x", "s3:/b", "gs://maos", "s3://", "s3://ab", "s3://a:b@c", "s3://maos//a"]
            .into_iter()
            .chain(["s3://maos/../a", "s3://maos/a b", "s3://maos?x", &long])
        {
            let refused = check(url, "", "", false).unwrap_err();
            assert!(refused.starts_with("`blobs.url` is"), "{url}: {refused}");
        }
        for (url, endpoint, region, allow_http, wanted) in [
            ("", "https://a", "", false, "`blobs.endpoint` is `https://a`, it must be empty"),
            ("", "", "x", false, "`blobs.region` is `x`, it must be empty"),
            ("", "", "", true, "`blobs.allow_http` is `true`, it must be false"),
            (
                "s3://maos",
                "http://a",
                "",
                false,
                "`blobs.endpoint` is `http://a`, it must be a URL",
            ),
            ("s3://maos", "https://a:b@c", "", false, "`blobs.endpoint` is `another URL`"),
            ("s3://maos", "https://a/b", "", false, "`blobs.endpoint` is `another URL`"),
            ("s3://maos", "ftp://a", "", false, "`blobs.endpoint` is `another URL`"),
            ("s3://maos", "", "eu/1", false, "`blobs.region` is `eu/1`, it must be the name"),
        ] {
            let refused = check(url, endpoint, region, allow_http).unwrap_err();
            assert!(refused.starts_with(wanted), "{refused}");
        }
        let blobs = Blobs { url: "s3://maos".to_owned(), ..Blobs::default() };
        let refused = blobs.check(FILE_BYTES_MAX + 1).unwrap_err().to_string();
        assert!(refused.starts_with("`api.artifact_bytes_max` is"), "{refused}");
    }
}
