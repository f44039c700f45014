//! One port for plaintext and TLS.
#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

mod cast;

use std::time::Duration;

use cast::{access_point, client, code, config, from_client};
use gateway::{Gateway, NoLocal, Shared, TlsConfig, listener};
use hyper_util::rt::TokioIo;
use proto::v2::{HeartbeatRequest, messaging_service_client::MessagingServiceClient};
use raftmq_client::Tls;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

fn connector(tls: &Tls) -> TlsConnector {
    TlsConnector::from(tls.config().expect("roots").expect("no plaintext"))
}

async fn over_tls(
    address: &str,
    tls: TlsConnector,
) -> Result<MessagingServiceClient<Channel>, tonic::transport::Error> {
    let target = address.to_owned();
    let connect = tower::service_fn(move |_: http::Uri| {
        let (tls, target) = (tls.clone(), target.clone());
        async move {
            let socket = TcpStream::connect(&target).await?;
            let name = ServerName::try_from("localhost").expect("a name");
            tls.connect(name, socket).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    Ok(MessagingServiceClient::new(endpoint.connect_with_connector(connect).await?))
}

#[tokio::test]
async fn plaintext_and_tls_share_the_port() {
    let (access, _directory) = access_point().await;
    let mut plain = client(&access.address).await;
    // Without verification, as four of the official clients do.
    let mut encrypted =
        over_tls(&access.address, connector(&Tls::Unverified)).await.expect("the handshake");
    for client in [&mut plain, &mut encrypted] {
        let beat = client.heartbeat(from_client(HeartbeatRequest::default())).await;
        assert_eq!(code(beat.expect("an answer").get_ref().status.as_ref()), 20000);
    }
}

#[tokio::test]
async fn a_certificate_from_files_is_shown_to_clients_that_verify() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    let tls = TlsConfig::from_files(&chain, &key).expect("both are fine");
    let swapped = TlsConfig::from_files(&key, &chain).expect_err("they are swapped");
    assert!(swapped.to_string().contains("key.pem"), "{swapped}");

    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("bound").to_string();
    let gateway = Gateway::start(config(), NoLocal, Shared::default());
    tokio::spawn(
        gateway::server::builder()
            .add_service(gateway.service())
            .serve_with_incoming(listener::incoming(port, tls)),
    );
    let trusting = Tls::Roots { pem: made.cert.pem().into() };
    let mut trusting = over_tls(&address, connector(&trusting)).await.expect("it is verified");
    let beat = trusting.heartbeat(from_client(HeartbeatRequest::default())).await;
    assert_eq!(code(beat.expect("an answer").get_ref().status.as_ref()), 20000);
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("another");
    let other = Tls::Roots { pem: other.cert.pem().into() };
    assert!(over_tls(&address, connector(&other)).await.is_err(), "others are not fooled");
}

#[tokio::test]
async fn garbage_ends_its_connection_and_no_other() {
    let (access, _directory) = access_point().await;
    for garbage in [&b"\x16\x03garbage that is no handshake"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut socket = TcpStream::connect(&access.address).await.expect("it listens");
        socket.write_all(garbage).await.expect("open");
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await;
        // Closed with or without a last word; only an open connection would be wrong.
        assert!(end.is_ok(), "{garbage:?} keeps its connection");
    }
    let beat = client(&access.address).await.heartbeat(HeartbeatRequest::default()).await;
    assert!(beat.is_ok());
}

#[tokio::test]
async fn connections_over_the_bound_are_closed_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("bound");
    let tls = TlsConfig::self_signed(&["localhost".into()]).expect("a certificate");
    let gateway = Gateway::start(config(), NoLocal, Shared::default());
    tokio::spawn(
        gateway::server::builder()
            .add_service(gateway.service())
            .serve_with_incoming(listener::incoming_at_most(port, tls, 1)),
    );
    let first = client(&address.to_string()).await;
    let beat = first.clone().heartbeat(HeartbeatRequest::default()).await;
    assert!(beat.is_ok());
    let mut second = TcpStream::connect(address).await.expect("the kernel accepts");
    let end = timeout(Duration::from_secs(5), second.read_u8()).await.expect("closed at once");
    assert!(end.is_err());
    drop(first);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        let again = MessagingServiceClient::connect(format!("http://{address}")).await;
        if let Ok(mut again) = again
            && again.heartbeat(HeartbeatRequest::default()).await.is_ok()
        {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the place is never free again");
    }
}
