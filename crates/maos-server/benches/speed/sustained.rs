//! What the server keeps up with for minutes, its store written behind it all the while: batches
//! over HTTP from clients that send again what was refused because the store was full.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{BATCH, Client, House, Row, body, drain, number, tasks_completed};

const CLIENTS: usize = 8;
/// How long a client waits that was refused.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn measure() -> Vec<Row> {
    let house = House::open().await;
    let seconds = number("SECONDS", 300);
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let refused = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(send(house.address, until, refused.clone()))).collect();
    for client in clients {
        client.await.expect("a client");
    }
    let completed = tasks_completed(&house.server).await as f64;
    let took = begun.elapsed().as_secs_f64();
    let drained = drain(&house.server).await;
    house.close().await;
    let row = |name: String, figure, unit| Row { name: name.into(), figure, unit };
    let refused = refused.load(Ordering::Relaxed) as f64;
    vec![
        row(format!("sustained over {seconds} s, batches of {BATCH}"), completed / took, "tasks/s"),
        row("the same with the store caught up".into(), completed / (took + drained), "tasks/s"),
        row("batches refused meanwhile, as the store was full".into(), refused, "batches"),
    ]
}

/// Sends one batch after another until the time is over.
async fn send(address: SocketAddr, until: Instant, refused: Arc<AtomicU64>) {
    let one = String::from_utf8(body()).expect("JSON");
    let batch = format!("[{}]", vec![one; BATCH].join(","));
    let mut client = Client::connect(address).await;
    while Instant::now() < until {
        if client.send("/api/v1/tasks/batch", batch.as_bytes()).await.starts_with("HTTP/1.1 429") {
            refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
