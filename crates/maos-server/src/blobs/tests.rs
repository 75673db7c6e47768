//! What documents are promised, at each place where they can be; and what only a bucket can suffer.

mod bucket;

use std::fs;

use axum::http::Method;
use object_store::PutPayload;
use object_store::memory::InMemory;
use tempfile::TempDir;

use self::bucket::{BUCKET, Bucket, Cable, Fault, KEY};
use super::pieces::PIECE_BYTES;
use super::*;

/// One place for documents.
struct House {
    folder: TempDir,
    memory: Option<Arc<InMemory>>,
    s3: Option<(Arc<Bucket>, config::Blobs)>,
}

const NODE: NodeId = NodeId(7);
const HOUR: Duration = Duration::from_secs(3_600);

fn settings(url: &str, address: &str) -> config::Blobs {
    let (endpoint, region) = (format!("http://{address}"), String::new());
    config::Blobs { url: url.to_owned(), endpoint, region, allow_http: true }
}

fn made_up(name: &str) -> Option<String> {
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&name).then(|| KEY.to_owned())
}

impl House {
    fn local() -> House {
        House { folder: tempfile::tempdir().unwrap(), memory: None, s3: None }
    }

    fn memory() -> House {
        House { memory: Some(Arc::default()), ..House::local() }
    }

    async fn s3() -> House {
        let bucket = Arc::new(Bucket::default());
        let settings = settings(&format!("s3://{BUCKET}/a/b"), &bucket.serve().await);
        House { s3: Some((bucket, settings)), ..House::local() }
    }

    async fn all() -> [House; 3] {
        [House::local(), House::memory(), House::s3().await]
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("blobs")
    }

    async fn try_open(&self) -> Result<Blobs, BlobError> {
        if let Some(memory) = &self.memory {
            place::prepare(&self.path(), None)?;
            let place = Place::bucket(memory.clone(), Name::from("base"), "memory".to_owned());
            return Ok(Blobs::at(place, &self.path(), FRESH));
        }
        match &self.s3 {
            Some((_, settings)) => Blobs::open_as(&self.path(), settings, NODE, &made_up).await,
            None => Blobs::local(&self.path()),
        }
    }

    async fn open(&self) -> Arc<Blobs> {
        Arc::new(self.try_open().await.unwrap())
    }

    fn bucket(&self) -> &Bucket {
        &self.s3.as_ref().expect("it is in a bucket").0
    }

    /// What is in the local folder beside documents.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.len() > 3).collect()
    }
}

/// Bytes that no compression makes less of.
fn document(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ bytes as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut whole: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next()).collect();
    whole.truncate(bytes);
    whole
}

async fn kept(blobs: &Arc<Blobs>, document: &[u8], step: usize) -> Result<Kept, BlobError> {
    let mut draft = blobs.draft();
    document.chunks(step).for_each(|piece| draft.append(piece).unwrap());
    draft.keep(1_024).await
}

async fn told(blobs: &Blobs, hash: &[u8; 32]) -> Result<Vec<u8>, BlobError> {
    let mut reader = blobs.reader(hash).await?;
    let mut told = Vec::new();
    while let Some(piece) = reader.next_piece().await? {
        assert!(piece.len() <= PIECE_BYTES);
        told.extend(piece);
    }
    Ok(told)
}

async fn stored(blobs: &Blobs, hash: &[u8; 32]) -> Vec<u8> {
    let found = blobs.place.store().get(&blobs.place.at(hash)).await.unwrap();
    found.bytes().await.unwrap().to_vec()
}

async fn replace(blobs: &Blobs, hash: &[u8; 32], bytes: Vec<u8>) {
    blobs.place.put(&blobs.place.at(hash), PutPayload::from(bytes)).await.unwrap();
}

async fn written(blobs: &Blobs, hash: &[u8; 32]) -> SystemTime {
    blobs.place.store().head(&blobs.place.at(hash)).await.unwrap().last_modified.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_any_size_come_back_in_pieces_and_whole_and_are_written_once() {
    for house in House::all().await {
        let blobs = house.open().await;
        let small = kept(&blobs, &document(1_024), 100).await.unwrap();
        assert_eq!(small, Kept::Small(document(1_024)));
        for bytes in [1_025, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 20 * PIECE_BYTES + 5] {
            let whole = document(bytes);
            let hash = *blake3::hash(&whole).as_bytes();
            let wanted = Kept::Stored { hash, bytes: bytes as u64 };
            assert_eq!(kept(&blobs, &whole, 70_000).await.unwrap(), wanted, "{bytes}");
            let first = written(&blobs, &hash).await;
            assert_eq!(kept(&blobs, &whole, 5 << 20).await.unwrap(), wanted, "in one go");
            assert_eq!(blobs.write(whole.clone()).await.unwrap(), hash, "it is there already");
            assert_eq!(written(&blobs, &hash).await, first);
            assert_eq!(blobs.reader(&hash).await.unwrap().left(), bytes as u64);
            assert!(told(&blobs, &hash).await.unwrap() == whole, "{bytes}");
            assert!(blobs.read(&hash).await.unwrap() == whole, "{bytes}");
        }
        let again = house.open().await;
        let hash = *blake3::hash(&document(1_025)).as_bytes();
        assert_eq!(again.read(&hash).await.unwrap(), document(1_025));
        assert!(house.left().is_empty(), "{:?}", house.left());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_altered_and_exchanged_documents_are_refused() {
    for house in House::all().await {
        let blobs = house.open().await;
        assert!(matches!(blobs.read(&[0; 32]).await, Err(BlobError::Missing { .. })));
        let one = blobs.write(b"one".to_vec()).await.unwrap();
        let two = blobs.write(b"two".to_vec()).await.unwrap();
        replace(&blobs, &one, stored(&blobs, &two).await).await;
        assert!(matches!(blobs.read(&one).await, Err(BlobError::Damaged { .. })));
        replace(&blobs, &two, b"short".to_vec()).await;
        assert!(matches!(blobs.read(&two).await, Err(BlobError::Damaged { .. })));
        let refused = blobs.write(vec![0; BLOB_BYTES_MAX + 1]).await;
        assert!(matches!(refused, Err(BlobError::TooLarge { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_anywhere_is_not_told_to_its_end() {
    for house in House::all().await {
        let blobs = house.open().await;
        let whole = document(2 * PIECE_BYTES + 9);
        let Kept::Stored { hash, .. } = kept(&blobs, &whole, 1 << 16).await.unwrap() else {
            panic!("it is large");
        };
        told(&blobs, &hash).await.unwrap();
        let sealed = stored(&blobs, &hash).await;
        for at in [0, 3, 17, 25, 30, sealed.len() / 2, sealed.len() - 1] {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            replace(&blobs, &hash, altered).await;
            let told = told(&blobs, &hash).await;
            assert!(matches!(told, Err(BlobError::Damaged { .. })), "byte {at}");
        }
        for cut in [0, 10, 30, sealed.len() / 2, sealed.len() - 1] {
            replace(&blobs, &hash, sealed[..cut].to_vec()).await;
            let told = told(&blobs, &hash).await;
            assert!(matches!(told, Err(BlobError::Damaged { .. })), "cut at {cut}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_leaves_nothing_also_after_a_crash() {
    for house in House::all().await {
        let blobs = house.open().await;
        let mut draft = blobs.draft();
        draft.append(&document(2 * PIECE_BYTES)).unwrap();
        assert_eq!(house.left().len(), 1);
        drop(draft);
        assert_eq!(house.left().len(), 0);
        fs::write(house.path().join("0190.partial"), b"x").unwrap();
        drop(house.open().await);
        assert_eq!(house.left().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_nobody_kept_for_long_is_removed() {
    let nanosecond = Duration::from_nanos(1);
    for house in [House::local(), House::memory()] {
        let blobs = Blobs { fresh: Duration::ZERO, ..house.try_open().await.unwrap() };
        let hash = blobs.write(b"document".to_vec()).await.unwrap();
        let first = written(&blobs, &hash).await;
        // Clocks of files tick slowly.
        while written(&blobs, &hash).await == first {
            assert_eq!(blobs.write(b"document".to_vec()).await.unwrap(), hash, "fresh again");
        }
        assert!(blobs.quiet(HOUR, 10).await.unwrap().is_empty());
        assert!(!blobs.remove_quiet(&hash, HOUR).await.unwrap());
        while blobs.quiet(nanosecond, 10).await.unwrap().is_empty() {}
        assert_eq!(blobs.quiet(nanosecond, 10).await.unwrap(), [hash]);
        assert!(blobs.quiet(nanosecond, 0).await.unwrap().is_empty(), "not more than that");
        assert!(blobs.remove_quiet(&hash, nanosecond).await.unwrap());
        assert!(!blobs.remove_quiet(&hash, nanosecond).await.unwrap());
        assert!(matches!(blobs.read(&hash).await, Err(BlobError::Missing { .. })));
    }
    // With the times of a bucket, which has whole seconds only.
    let house = House::s3().await;
    let blobs = house.open().await;
    *house.bucket().behind.lock().unwrap() = 2 * HOUR;
    let old = blobs.write(b"old".to_vec()).await.unwrap();
    let again = blobs.write(b"again".to_vec()).await.unwrap();
    *house.bucket().behind.lock().unwrap() = Duration::ZERO;
    let young = blobs.write(b"young".to_vec()).await.unwrap();
    blobs.write(b"again".to_vec()).await.unwrap();
    assert_eq!(blobs.quiet(HOUR, 10).await.unwrap(), [old]);
    assert!(!blobs.remove_quiet(&young, HOUR).await.unwrap());
    assert!(!blobs.remove_quiet(&again, HOUR).await.unwrap());
    assert!(blobs.remove_quiet(&old, HOUR).await.unwrap());
    assert!(matches!(blobs.read(&old).await, Err(BlobError::Missing { .. })));
    assert_eq!(blobs.read(&again).await.unwrap(), b"again");
}

#[tokio::test]
async fn what_a_crash_left_in_the_folder_of_a_document_goes_when_it_is_old() {
    let house = House::local();
    let blobs = house.open().await;
    let hash = blobs.write(b"document".to_vec()).await.unwrap();
    let name = blake3::Hash::from_bytes(hash).to_hex();
    let folder = house.path().join(&name[..2]);
    let staged = ["x#1".to_owned(), format!("{}#2", &name[2..]), "0190.partial".to_owned()];
    for name in &staged {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - 2 * HOUR).unwrap();
    }
    fs::write(folder.join("y#1"), "on its way").unwrap();
    assert!(blobs.quiet(HOUR, 10).await.unwrap().is_empty());
    let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let left: std::collections::BTreeSet<_> = left.collect();
    assert_eq!(left, [&name[2..], "y#1"].map(Into::into).into());
    assert_eq!(blobs.read(&hash).await.unwrap(), b"document");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_stumbles_is_asked_again_and_one_that_fails_is_told_of() {
    let house = House::s3().await;
    let blobs = house.open().await;
    let bucket = house.bucket();
    for method in [Method::HEAD, Method::PUT, Method::GET] {
        bucket.fail(method, "/a/b/", Fault::BrokenOnce);
    }
    let hash = blobs.write(document(5_000)).await.unwrap();
    assert_eq!(blobs.read(&hash).await.unwrap(), document(5_000));
    assert!(bucket.faults.lock().unwrap().is_empty());
    bucket.fail(Method::PUT, "/a/b/", Fault::Broken);
    let refused = blobs.write(document(6_000)).await.unwrap_err().to_string();
    assert!(refused.starts_with("the document `s3://maos-test/a/b/"), "{refused}");
    assert!(refused.ends_with("InternalError: so it is"), "{refused}");
    assert!(!refused.contains(KEY), "{refused}");
    bucket.faults.lock().unwrap().clear();
    let hash = blobs.write(document(6_000)).await.unwrap();
    assert_eq!(blobs.read(&hash).await.unwrap(), document(6_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_middle_loses_nothing() {
    let mut house = House::s3().await;
    let cable = Arc::new(Cable::default());
    let (_, settings) = house.s3.as_mut().unwrap();
    let far = settings.endpoint.trim_start_matches("http://").to_owned();
    settings.endpoint = format!("http://{}", cable.lay(far).await);
    let whole = document(20 * PIECE_BYTES);
    let blobs = house.open().await;
    // In the first part, in the second one, and at once.
    cable.cut(&[3 << 20, 9 << 20, 100]);
    let Kept::Stored { hash, .. } = kept(&blobs, &whole, 1 << 20).await.unwrap() else {
        panic!("it is large");
    };
    assert_eq!(cable.cuts_left(), 0);
    cable.cut(&[3 << 20, 100, 9 << 20]);
    assert!(told(&blobs, &hash).await.unwrap() == whole);
    assert_eq!(cable.cuts_left(), 0);
    let asked = house.bucket().asked("GET /maos-test/a/b/");
    assert!(asked >= 4, "it goes on where it broke off");
    cable.cut(&[1 << 20; 200]);
    assert!(matches!(told(&blobs, &hash).await, Err(BlobError::Failed { .. })));
    assert!(matches!(
        kept(&blobs, &document(9 << 20), 1 << 20).await,
        Err(BlobError::Failed { .. })
    ));
    cable.mend();
    assert!(told(&blobs, &hash).await.unwrap() == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_does_not_end_leaves_no_parts_and_one_whose_answer_is_lost_is_there() {
    let house = House::s3().await;
    let blobs = house.open().await;
    let bucket = house.bucket();
    let whole = document(20 * PIECE_BYTES);
    bucket.fail(Method::PUT, "partNumber=2", Fault::Broken);
    let refused = kept(&blobs, &whole, 1 << 20).await.unwrap_err();
    assert!(matches!(refused, BlobError::Failed { .. }), "{refused}");
    while !bucket.uploads.lock().unwrap().is_empty() || !house.left().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bucket.objects.lock().unwrap().len(), 1, "its owner");
    bucket.faults.lock().unwrap().clear();
    bucket.fail(Method::POST, "?uploadId", Fault::Unheard);
    let Kept::Stored { hash, .. } = kept(&blobs, &whole, 1 << 20).await.unwrap() else {
        panic!("it is large");
    };
    assert!(told(&blobs, &hash).await.unwrap() == whole);
    assert_eq!(house.left(), [""; 0]);
    // As a crash leaves it.
    bucket.faults.lock().unwrap().clear();
    bucket.uploads.lock().unwrap().insert("upload-9".to_owned(), <_>::default());
    fs::write(house.path().join("0190.upload"), "a/b/ab/cd\nupload-9\n").unwrap();
    drop(house.open().await);
    assert!(bucket.uploads.lock().unwrap().is_empty() && house.left().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_refused_with_what_to_do() {
    let house = House::s3().await;
    let (bucket, good) = house.s3.as_ref().unwrap();
    let refused = async |settings: &config::Blobs, node, environment: s3::Environment<'_>| {
        let opened = Blobs::open_as(&house.path(), settings, node, environment).await;
        opened.err().map(|why| why.to_string()).unwrap_or_default()
    };
    let check = |text: String, wanted: [&str; 3]| {
        assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
        assert!(!text.contains(KEY), "{text}");
    };
    let other = config::Blobs { url: "s3://other".to_owned(), ..good.clone() };
    let wanted = ["`s3://other`, which `blobs.url` names", "NoSuchBucket", "hint: make the bucket"];
    check(refused(&other, NODE, &made_up).await, wanted);
    let wrong = |name: &str| made_up(name).map(|_| "wrong".to_owned());
    let wanted = ["`blobs.url`", "InvalidAccessKeyId", "hint: AWS_ACCESS_KEY_ID"];
    check(refused(good, NODE, &wrong).await, wanted);
    let half = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| KEY.to_owned());
    let wanted = ["`blobs.url`", "AWS", "hint: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"];
    check(refused(good, NODE, &half).await, wanted);
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let wanted = ["`blobs.url`", "refused", "hint: look at `blobs.endpoint`"];
    check(refused(&settings(&good.url, &nobody.to_string()), NODE, &made_up).await, wanted);
    *bucket.behind.lock().unwrap() = HOUR;
    let wanted = ["its clock is 36", "s away", "hint: set the clock"];
    check(refused(good, NODE, &made_up).await, wanted);
    *bucket.behind.lock().unwrap() = Duration::ZERO;
    bucket.fail(Method::DELETE, "", Fault::Broken);
    let wanted = ["`blobs.url`", "InternalError", "hint: look at"];
    check(refused(good, NODE, &made_up).await, wanted);
    bucket.faults.lock().unwrap().clear();
    assert_eq!(refused(good, NODE, &made_up).await, "");
    let wanted = ["another server's (`node ", "hint: give each server", "prefix of its own"];
    check(refused(good, NodeId(8), &made_up).await, wanted);
    assert_eq!(refused(good, NODE, &made_up).await, "", "it is still ours");
    assert!(bucket.signed.lock().unwrap().contains("/us-east-1/s3/"));
    let elsewhere = config::Blobs { region: "eu-west-1".to_owned(), ..good.clone() };
    assert_eq!(refused(&elsewhere, NODE, &made_up).await, "");
    assert!(bucket.signed.lock().unwrap().contains("/eu-west-1/s3/"));
    assert!(bucket.asked("POST") == 0 && bucket.asked("PUT /maos-test/a/b/probe") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_elsewhere_are_missed_at_once() {
    let house = House::s3().await;
    let (bucket, settings) = house.s3.as_ref().unwrap();
    drop(house.open().await);
    let text = Blobs::local(&house.path()).unwrap_err().to_string();
    let wanted = "the documents of this server are in `s3://maos-test/a/b`, and `blobs.url` says";
    assert!(text.starts_with(wanted) && text.contains("hint: set it back"), "{text}");
    let other = config::Blobs { url: format!("s3://{BUCKET}"), ..settings.clone() };
    let text = Blobs::open_as(&house.path(), &other, NODE, &made_up).await.unwrap_err().to_string();
    assert!(text.starts_with(wanted), "{text}");
    bucket.objects.lock().unwrap().clear();
    let text = house.try_open().await.unwrap_err().to_string();
    assert!(text.contains("it is empty, and documents were kept in it before"), "{text}");

    let local = House::local();
    local.open().await.write(b"document".to_vec()).await.unwrap();
    let opened = Blobs::open_as(&local.path(), settings, NODE, &made_up).await;
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("says `s3://maos-test/a/b`\nhint: copy what is in it"), "{text}");
}
