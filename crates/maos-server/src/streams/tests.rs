//! The streams at their door.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::*;

const SMALL: Options = Options {
    durability: Durability::Synced,
    bytes_max: 100_000,
    at_total: AtTotal::Refuse,
    pending_bytes_max: 1 << 20,
    node: NodeId(7),
};

fn entry(text: &str) -> Entry {
    Entry { expires: None, body: text.as_bytes().to_vec() }
}

fn opened(options: Options) -> (Streams, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Streams::open(&folder.path().join("s.db"), options).unwrap(), folder)
}

async fn append(streams: &Streams, name: &str, text: &str) -> Result<u64, StreamError> {
    let appended = streams.append(name, vec![entry(text)], Room::Any, None).await;
    appended.map(|appended| appended.first)
}

fn texts(page: &Page) -> Vec<(u64, String)> {
    let text = |read: &Read| String::from_utf8(read.body.clone()).unwrap();
    page.entries.iter().map(|read| (read.offset, text(read))).collect()
}

#[tokio::test]
async fn what_was_answered_is_there_in_order_and_after_opening_it_anew() {
    let (streams, folder) = opened(SMALL);
    let path = folder.path().join("s.db");
    assert!(streams.read("a", 0, 10).unwrap().at_end && !path.exists(), "nothing is made to read");
    for (name, text, offset) in [("a", "one", 0), ("b", "two", 0), ("a", "three", 1)] {
        assert_eq!(append(&streams, name, text).await.unwrap(), offset);
    }
    streams.close();
    assert!(matches!(append(&streams, "a", "late").await, Err(StreamError::Closed)));
    let streams = Streams::open(&path, SMALL).unwrap();
    let page = streams.read("a", 0, 1).unwrap();
    assert_eq!((texts(&page), page.next, page.at_end), (vec![(0, "one".into())], 1, false));
    let page = streams.read("a", 1, 10).unwrap();
    assert_eq!((texts(&page), page.next, page.at_end), (vec![(1, "three".into())], 2, true));
    assert_eq!(append(&streams, "a", "four").await.unwrap(), 2);
    assert_eq!(streams.totals().unwrap().entries, 4);
}

#[tokio::test]
async fn a_stream_says_which_node_began_it_and_a_file_from_before_is_brought_up_to_date() {
    let (streams, folder) = opened(SMALL);
    let path = folder.path().join("s.db");
    let node = |streams: &Streams, name| streams.standing(name).unwrap().unwrap().node;
    append(&streams, "a", "one").await.unwrap();
    assert_eq!(node(&streams, "a"), Some(NodeId(7)));
    streams.close();
    // As format 1 had it.
    let db = Connection::open(&path).unwrap();
    db.execute_batch("ALTER TABLE streams DROP COLUMN node; PRAGMA user_version = 1").unwrap();
    drop(db);
    let streams = Streams::open(&path, Options { node: NodeId(8), ..SMALL }).unwrap();
    assert_eq!(texts(&streams.read("a", 0, 10).unwrap()), [(0, "one".into())]);
    append(&streams, "a", "two").await.unwrap();
    append(&streams, "b", "three").await.unwrap();
    assert_eq!((node(&streams, "a"), node(&streams, "b")), (None, Some(NodeId(8))));
    let names: Vec<_> = streams.standings("", "", 9).unwrap();
    assert_eq!(names.iter().map(|found| found.node).collect::<Vec<_>>(), [None, Some(NodeId(8))]);
    streams.close();
}

#[tokio::test]
async fn who_waits_is_woken_by_the_commit() {
    let (streams, _folder) = opened(SMALL);
    let mut watch = streams.watch("a");
    append(&streams, "other", "x").await.unwrap();
    let waiting = tokio::spawn(async move {
        let woken = watch.longer().await;
        (woken.is_ok(), watch)
    });
    append(&streams, "a", "x").await.unwrap();
    let (woken, mut watch) = waiting.await.unwrap();
    assert!(woken);
    assert_eq!(streams.inner.watched.senders().len(), 1);
    streams.close();
    assert!(matches!(watch.longer().await, Err(StreamError::Closed)));
    drop(watch);
    assert!(streams.inner.watched.senders().is_empty());
}

#[tokio::test]
async fn a_reader_that_does_not_come_makes_a_full_stream_and_its_acknowledgement_room() {
    let (streams, _folder) = opened(SMALL);
    let put = |text: &'static str| {
        let streams = streams.clone();
        async move { streams.append("a", vec![entry(text)], Room::Unread(2), None).await }
    };
    put("0").await.unwrap();
    put("1").await.unwrap();
    for _ in 0..2 {
        assert!(matches!(put("2").await, Err(StreamError::Unread { unread: 2, bound: 2, .. })));
    }
    assert_eq!(streams.acknowledge("a", "r", 1).await.unwrap(), 1);
    assert_eq!(put("2").await.unwrap().first, 2);
    assert!(matches!(put("3").await, Err(StreamError::Unread { .. })), "what was refused is not");
    assert_eq!(streams.acknowledge("a", "r", 99).await.unwrap(), 3, "no further than there is");
    assert_eq!(streams.acknowledge("a", "r", 1).await.unwrap(), 3, "it never goes back");
    assert_eq!(texts(&streams.read_on("a", "r", 9).unwrap()), []);
    assert_eq!(streams.read_on("a", "new", 9).unwrap().entries.len(), 3, "replay is possible");
    put("3").await.unwrap();
    let standing = streams.standing("a").unwrap().unwrap();
    let reader = ReaderStanding { name: "r".to_owned(), acknowledged: 3, waiting: 1 };
    assert_eq!((standing.next, standing.readers), (4, vec![reader]));
    streams.forget("a", "r").await.unwrap();
    assert!(matches!(put("4").await, Err(StreamError::Unread { unread: 4, .. })));
}

#[tokio::test]
async fn what_has_expired_is_not_read_and_makes_room() {
    let (streams, _folder) = opened(SMALL);
    let past = Entry { expires: Some(1), body: b"old".to_vec() };
    let far = Entry { expires: Some(u64::MAX >> 1), body: b"new".to_vec() };
    streams.append("a", vec![past, far.clone()], Room::Unread(2), None).await.unwrap();
    assert_eq!(texts(&streams.read("a", 0, 9).unwrap()), [(1, "new".to_owned())]);
    streams.acknowledge("a", "r", 0).await.unwrap();
    let held = streams.standings("", "", 9).unwrap();
    assert_eq!((held[0].entries, held[0].readers[0].waiting), (1, 1), "what is read: {held:?}");
    let all = streams.totals().unwrap();
    assert_eq!((all.entries, all.unread, all.bytes), (1, 1, held[0].bytes), "the same in all");
    let taken = streams.append("a", vec![far], Room::Unread(2), None).await.unwrap();
    assert_eq!(taken.first, 2);
}

#[tokio::test]
async fn totals_are_those_of_what_can_still_be_read() {
    let (streams, _folder) = opened(SMALL);
    let new = || entry("new");
    let old = || Entry { expires: Some(1), body: b"old".to_vec() };
    let unread = || streams.totals().unwrap().unread;
    streams.append("unread", vec![old(), new(), new()], Room::Any, None).await.unwrap();
    assert_eq!(unread(), 2);
    let mixed = vec![new(), old(), new(), old(), new()];
    streams.append("mixed", mixed, Room::Any, None).await.unwrap();
    for (acknowledged, left) in [(1, 2), (3, 1), (5, 0)] {
        streams.acknowledge("mixed", "r", acknowledged).await.unwrap();
        assert_eq!(unread(), 2 + left, "after {acknowledged}");
    }
    streams.acknowledge("mixed", "slow", 2).await.unwrap();
    assert_eq!(unread(), 2 + 2, "the slowest one counts");
    streams.append("whole", vec![new(), new()], Room::Any, None).await.unwrap();
    streams.acknowledge("whole", "r", 1).await.unwrap();
    assert_eq!((unread(), streams.totals().unwrap().entries), (2 + 2 + 1, 2 + 3 + 2));
}

#[tokio::test]
async fn what_has_expired_is_cleared_away_when_the_file_is_full() {
    let (streams, _folder) = opened(Options { bytes_max: 1_000, ..SMALL });
    let entry = |expires| Entry { expires: Some(expires), body: (0..100).collect() };
    let old = vec![entry(1), entry(2), entry(3), entry(u64::MAX >> 1)];
    streams.append("a", old, Room::Any, None).await.unwrap();
    let more = || vec![entry(u64::MAX >> 1); 5];
    let taken = streams.append("b", more(), Room::Any, None).await.unwrap();
    assert_eq!((taken.first, streams.totals().unwrap().entries), (0, 6));
    assert_eq!(streams.standing("a").unwrap().unwrap().entries, 1);
    let refused = streams.append("b", more(), Room::Any, None).await;
    assert!(matches!(refused, Err(StreamError::Total { .. })));
}

#[tokio::test]
async fn a_whole_stream_ends_with_its_last_entry() {
    let (streams, _folder) = opened(SMALL);
    let room = || Room::Whole { entries_max: 2, bytes_max: 1_000, last: b"cut".to_vec() };
    let three = ["0", "1", "2"].map(entry).to_vec();
    let appended = streams.append("a", three.clone(), room(), None).await.unwrap();
    assert_eq!(appended.taken, 2);
    assert_eq!(streams.append("a", three, room(), None).await.unwrap().taken, 0);
    let page = streams.read("a", 0, 9).unwrap();
    let wanted = [(0, "0"), (1, "1"), (2, "cut")].map(|(at, text)| (at, text.to_owned()));
    assert_eq!(texts(&page), wanted);
    let large = vec![entry("x"), entry(&"random".repeat(10)), entry("y")];
    let room = Room::Whole { entries_max: 9, bytes_max: 60, last: b"cut".to_vec() };
    assert_eq!(streams.append("b", large, room, None).await.unwrap().taken, 1, "by bytes");
}

#[tokio::test]
async fn a_full_file_refuses_or_drops_what_is_oldest() {
    // Bytes that do not shrink.
    let filler = |seed: u8| -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]);
        let mut bytes = vec![0; 10_000];
        hasher.finalize_xof().fill(&mut bytes);
        bytes.iter().map(|byte| char::from(b'0' + byte % 64)).collect()
    };
    let (streams, _folder) = opened(SMALL);
    let mut seed = 0;
    loop {
        seed += 1;
        match append(&streams, "a", &filler(seed)).await {
            Ok(_) => assert!(seed < 20, "there is a bound"),
            Err(StreamError::Total { bound: 100_000, .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(streams.read("a", 0, 99).unwrap().entries[0].offset, 0, "nothing was dropped");
    streams.acknowledge("a", "r", 3).await.unwrap();
    append(&streams, "a", &filler(seed)).await.unwrap();
    assert_eq!(streams.read("a", 0, 99).unwrap().entries[0].offset, 3, "what was read went");
    let (streams, _folder) = opened(Options { at_total: AtTotal::DropOldest, ..SMALL });
    for seed in 0..30 {
        append(&streams, &format!("s{seed}"), &filler(seed)).await.unwrap();
    }
    assert!(streams.totals().unwrap().bytes <= 100_000);
    assert!(streams.read("s0", 0, 9).unwrap().entries.is_empty());
    assert_eq!(streams.read("s0", 0, 9).unwrap().next, 1, "it is known that there was one");
    assert_eq!(streams.read("s29", 0, 9).unwrap().entries.len(), 1);
}

#[tokio::test]
async fn the_same_key_appends_once() {
    let (streams, folder) = opened(SMALL);
    let once = |hash: u8| {
        let (key, note) = ("k".to_owned(), vec![hash]);
        Some(Once { key, hash: [hash; 32], note, until: u64::MAX >> 1 })
    };
    let put = |hash| streams.append("a", vec![entry("x")], Room::Any, once(hash));
    assert_eq!(put(1).await.unwrap().before, None);
    let again = put(1).await.unwrap();
    assert_eq!((again.first, again.before), (0, Some(vec![1])));
    assert!(matches!(put(2).await, Err(StreamError::KeyReused { .. })));
    assert_eq!(streams.totals().unwrap().entries, 1);
    let db = Connection::open(folder.path().join("s.db")).unwrap();
    let note: Vec<u8> = db.query_row("SELECT note FROM keys", (), |row| row.get(0)).unwrap();
    assert!(codec::begins(Kind::StreamEntry, &note), "a note is stored as all else is");
    db.execute("UPDATE keys SET note = x'01'", ()).unwrap();
    assert_eq!(put(1).await.unwrap().before, Some(vec![1]), "as format 1 kept it");
    db.execute("UPDATE keys SET note = ?", [&note[..note.len() - 1]]).unwrap();
    assert!(matches!(put(1).await, Err(StreamError::Damaged { .. })));
}

#[tokio::test]
async fn trims_removals_and_facts() {
    let (streams, _folder) = opened(SMALL);
    for text in ["0", "1", "2"] {
        append(&streams, "a/1", text).await.unwrap();
        append(&streams, "b", text).await.unwrap();
    }
    streams.trim("a/1", 2).await.unwrap();
    assert_eq!(texts(&streams.read("a/1", 0, 9).unwrap()), [(2, "2".to_owned())]);
    let standings = streams.standings("a/", "", 9).unwrap();
    assert_eq!((standings.len(), standings[0].entries), (1, 1));
    streams.remove(vec!["a/1".to_owned(), "none".to_owned()]).await.unwrap();
    assert_eq!(streams.standing("a/1").unwrap(), None);
    assert_eq!(streams.totals().unwrap().entries, 3);
    streams.keep("f/1", Some(b"fact".to_vec())).await.unwrap();
    assert_eq!(streams.facts("f/").unwrap(), [("f/1".to_owned(), b"fact".to_vec())]);
    streams.keep("f/1", None).await.unwrap();
    assert_eq!(streams.facts("f/").unwrap(), []);
}

#[tokio::test]
async fn more_than_may_wait_is_refused_at_once() {
    let (streams, _folder) = opened(Options { pending_bytes_max: 100, ..SMALL });
    let large = vec![entry(
        "random, not so long, but it has more bytes than may wait there; no \
        repetition, so that it is not compressed: 0123456789 abcdefghijklmnop",
    )];
    let refused = streams.begin_append("a", large, Room::Any, None);
    assert!(matches!(refused, Err(StreamError::Busy { .. })));
    append(&streams, "a", "small").await.unwrap();
}

#[tokio::test]
async fn damage_is_refused_by_name() {
    for (sql, said) in [
        ("PRAGMA application_id = 5", "none of streams of MAOS"),
        ("PRAGMA user_version = 9", "has format 9"),
        ("DROP TABLE streams", "failed"),
    ] {
        let (streams, folder) = opened(SMALL);
        append(&streams, "a", "x").await.unwrap();
        streams.close();
        let path = folder.path().join("s.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let refusal = Streams::open(&path, SMALL).unwrap_err().to_string();
        assert!(refusal.contains(said), "{sql}: {refusal}");
    }
    let (streams, folder) = opened(SMALL);
    append(&streams, "a", "x").await.unwrap();
    streams.close();
    let path = folder.path().join("s.db");
    Connection::open(&path).unwrap().execute("UPDATE entries SET sealed = x'00'", ()).unwrap();
    let streams = Streams::open(&path, SMALL).unwrap();
    let refusal = streams.read("a", 0, 9).unwrap_err().to_string();
    assert!(refusal.contains("entry 0 of `a`") && refusal.contains("hint: "), "{refusal}");
    std::fs::write(&path, [b'x'; 9_000]).unwrap();
    let refusal = Streams::open(&path, SMALL).unwrap_err().to_string();
    assert!(refusal.contains("is damaged") && refusal.contains("hint: "), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_many_writers_do_not_stand_in_each_others_way() {
    let (streams, _folder) = opened(Options { bytes_max: 100 << 20, ..SMALL });
    let done = Arc::new(AtomicBool::new(false));
    let reading = tokio::task::spawn_blocking({
        let (streams, done) = (streams.clone(), done.clone());
        move || {
            let mut seen = 0;
            while !done.load(Ordering::Acquire) || seen < 200 {
                let page = streams.read("s3", seen, 50).unwrap();
                for read in &page.entries {
                    assert_eq!(read.offset, seen, "no gaps, no repetition");
                    seen += 1;
                }
            }
            seen
        }
    });
    let writers = (0..8).map(|writer| {
        let streams = streams.clone();
        tokio::spawn(async move {
            let name = format!("s{writer}");
            for index in 0..200_u64 {
                assert_eq!(append(&streams, &name, "line").await.unwrap(), index);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Release);
    let seen = tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap().unwrap();
    assert_eq!(seen, 200);
}
