//! The command line and a real server with a proxy before it that speaks TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::house::House;

/// A file of those that the tests of the client use.
fn certificate(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../maos-api/tests/client");
    tests.join("certificates").join(name)
}

/// Passes requests on to `server`, one on a connection.
fn proxy(server: SocketAddr) -> SocketAddr {
    let shown = CertificateDer::from_pem_file(certificate("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![shown], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            // Whoever is not trusted is hung up on.
            drop(pass_on(StreamOwned::new(connection, stream), server));
        }
    });
    address
}

fn pass_on(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    server: SocketAddr,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    head.truncate(head.len() - 2);
    head.extend_from_slice(b"connection: close\r\n\r\n");
    let mut server = TcpStream::connect(server)?;
    server.write_all(&head)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()
}

fn status(server: &str, authority: Option<&Path>) -> Output {
    let mut maos = Command::new(env!("CARGO_BIN_EXE_maos"));
    maos.args(["status", "--json", "--server", server]).env_remove("MAOS_SERVER_CA");
    if let Some(file) = authority {
        maos.env("MAOS_SERVER_CA", file);
    }
    maos.output().unwrap()
}

fn refusal(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(2));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |field: &str| document[field].as_str().unwrap().to_owned();
    (text("error_code"), text("error"))
}

#[test]
fn a_server_with_https_is_spoken_to_if_its_authority_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path());
    let url = format!("https://{}", proxy(house.address));
    let authority = certificate("authority.pem");
    let well = status(&url, Some(&authority));
    assert!(well.status.success(), "{}", String::from_utf8_lossy(&well.stderr));
    let status_shown: Value = serde_json::from_slice(&well.stdout).unwrap();
    assert!(status_shown.is_object());
    let (code, error) = refusal(&status(&url, None));
    assert!(code == "INSECURE" && error.contains("UnknownIssuer"), "{error}");
    let plain = format!("http://{}", house.address);
    let (code, error) = refusal(&status(&plain, Some(&authority)));
    assert!(code == "BAD_CERTIFICATE" && error.contains("is no https"), "{error}");
    let (code, error) = refusal(&status(&url, Some(&folder.path().join("none"))));
    assert!(code == "FAILED" && error.contains("of --server-ca cannot be read"), "{error}");
}
