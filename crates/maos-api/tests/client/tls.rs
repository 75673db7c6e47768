//! Whom the client trusts over https; `certificates/README.md` says what its server shows.

use std::error::Error;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use maos_api::client::{Client, ClientError, Patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{HEALTH, answer, run, server};

const AUTHORITY: &[u8] = include_bytes!("certificates/authority.pem");
const CERTIFICATE: &[u8] = include_bytes!("certificates/server.pem");
const KEY: &[u8] = include_bytes!("certificates/server.key");

fn acceptor() -> TlsAcceptor {
    let shown = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![shown], key)
        .unwrap();
    // It would rather speak HTTP/2.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config).into()
}

/// A healthy server with that certificate; how each connection to it began is sent.
fn secure_server() -> (SocketAddr, Receiver<Result<(), String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (began, begun) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let began = began.clone();
            thread::spawn(move || run(serve(stream, |how| began.send(how).unwrap())));
        }
    });
    (address, begun)
}

async fn serve(stream: std::net::TcpStream, began: impl Fn(Result<(), String>)) {
    stream.set_nonblocking(true).unwrap();
    let accepted = acceptor().accept(TcpStream::from_std(stream).unwrap()).await;
    let mut stream = match accepted {
        Ok(stream) => stream,
        Err(why) => return began(Err(why.to_string())),
    };
    began(Ok(()));
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            stream.write_all(answer(HEALTH).as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            head.clear();
        }
    }
}

fn client(host: &str, port: u16) -> Client {
    Client::new(&format!("https://{host}:{port}")).unwrap()
}

/// The fault of a server that is not trusted, with its cause in words.
fn insecure(error: ClientError) -> String {
    assert!(matches!(error, ClientError::Insecure { .. }), "{error:?}");
    format!("{error}: {}", error.source().unwrap())
}

#[test]
fn a_server_of_a_trusted_authority_is_spoken_to_over_one_connection() {
    let (address, begun) = secure_server();
    let client = client("127.0.0.1", address.port()).with_root_certificate(AUTHORITY).unwrap();
    run(async {
        for _ in 0..3 {
            assert_eq!(client.health().await.unwrap().version, "1");
        }
    });
    assert_eq!(begun.try_iter().collect::<Vec<_>>(), [Ok(())]);
}

#[test]
fn a_server_of_an_authority_that_nobody_knows_is_refused_at_once() {
    let (address, begun) = secure_server();
    let refused = insecure(run(client("127.0.0.1", address.port()).health()).unwrap_err());
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    assert!(begun.recv().unwrap().unwrap_err().contains("UnknownCA"));
    assert!(begun.try_recv().is_err(), "it is not asked again");
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let (address, _begun) = secure_server();
    let client = client("localhost", address.port()).with_root_certificate(AUTHORITY).unwrap();
    let refused = insecure(run(client.health()).unwrap_err());
    assert!(refused.contains("not valid for name"), "{refused}");
}

#[test]
fn a_server_without_tls_is_refused_and_a_silent_one_runs_out_of_time() {
    let (plain, _connections) = server(|mut stream, _| {
        stream.write_all(answer(HEALTH).as_bytes()).unwrap();
    });
    let secure = |plain: &Client| plain.url().replace("http://", "https://");
    let refused = insecure(run(Client::new(&secure(&plain)).unwrap().health()).unwrap_err());
    assert!(refused.contains("corrupt message"), "{refused}");
    let (silent, _connections) = server(|mut stream, _| {
        // Until the client hangs up.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let patience = Patience { connect: Duration::from_millis(50), ..Patience::default() };
    let client = Client::new(&secure(&silent)).unwrap().with_patience(patience);
    let error = run(client.with_retries(maos_api::client::Retries::NONE).health()).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

#[test]
fn what_is_no_certificate_or_would_not_be_used_is_refused() {
    let why = |url: &str, pem: &[u8]| {
        let error = Client::new(url).unwrap().with_root_certificate(pem).unwrap_err();
        assert!(matches!(error, ClientError::BadCertificate { .. }), "{error:?}");
        error.to_string()
    };
    let cut = &AUTHORITY[..AUTHORITY.len() - 40];
    for (pem, part) in [(&b""[..], "there is none"), (KEY, "there is none"), (cut, "damaged")] {
        let why = why("https://maos.test", pem);
        assert!(why.contains(part), "{why}");
    }
    let empty = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    why("https://maos.test", empty);
    assert!(why("http://maos.test", AUTHORITY).contains("is no https"));
}
