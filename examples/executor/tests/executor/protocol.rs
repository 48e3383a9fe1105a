//! What hostile and broken clients send.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memdl_executor::client::Library;
use memdl_executor::protocol::{
    Announced, Digest, Failure, FailureKind, FrameKind, Header, Hello, VERSION, write_frame,
};
use ring::hmac;

use crate::common::{Server, assert_failure, work};

/// A connection on which the handshake is done, by the words of PROTOCOL.md.
fn greeted(server: &Server) -> UnixStream {
    let mut socket = server.raw();
    let hello = Hello { version: VERSION, nonce: [7; 32] };
    hello.write(&mut socket).unwrap();
    let challenge = Header::expect(&mut socket).unwrap();
    assert_eq!((challenge.kind, challenge.len), (FrameKind::Challenge, 32));
    let nonce = challenge.body(&mut socket, 32).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
    let proof = hmac::sign(&key, &[b"memdl-executor client 1", &[7; 32][..], &nonce].concat());
    write_frame(&mut socket, FrameKind::Proof, proof.as_ref(), &[]).unwrap();
    let welcome = Header::expect(&mut socket).unwrap();
    assert_eq!((welcome.kind, welcome.len), (FrameKind::Welcome, 44));
    welcome.body(&mut socket, 44).unwrap();
    socket
}

/// The failure that the server sends, and the end of the connection.
#[track_caller]
fn last_failure(mut socket: UnixStream) -> Failure {
    let header = Header::expect(&mut socket).unwrap();
    assert_eq!(header.kind, FrameKind::Failure);
    let failure = Failure::read(header, &mut socket);
    // The end, or a reset where the server has not read all.
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0, "the connection goes on");
    failure
}

#[test]
fn another_version_is_told_so() {
    let server = Server::start(&[]);
    let mut socket = server.raw();
    Hello { version: 2, nonce: [0; 32] }.write(&mut socket).unwrap();
    assert_failure(&last_failure(socket), FailureKind::Version, "not 2");
    server.assert_lives();
}

#[test]
fn frames_that_are_too_long_end_the_connection() {
    let server = Server::start(&["--max-input", "1000", "--max-library", "1000000"]);
    for kind in [FrameKind::Call, FrameKind::Library] {
        let mut socket = greeted(&server);
        socket.write_all(&[0xff, 0xff, 0xff, 0xff, kind as u8, 0, 0, 0]).unwrap();
        assert_failure(&last_failure(socket), FailureKind::TooLarge, "exceeds the limit");
    }
    let mut socket = greeted(&server);
    let digest = Digest([0; 32]);
    let announced = Announced { digest, signature: None, len: 1_000_001 };
    socket.write_all(&announced.start_of_frame().unwrap()).unwrap();
    assert_failure(&last_failure(socket), FailureKind::TooLarge, "1000001");
    // Our own client does not even try.
    let library = Library::new(vec![0; 1_000_001]);
    let failure = server.client().send(&library, &mut |_| {}).unwrap_err();
    assert_failure(&failure, FailureKind::TooLarge, "1000001");
    server.assert_lives();
}

#[test]
fn frames_that_are_cut_end_the_connection() {
    let server = Server::start(&[]);
    let announced = Announced { digest: work().digest(), signature: None, len: work().len() };
    let mut frame = announced.start_of_frame().unwrap();
    frame.resize(frame.len() + 5000, 0);
    for len in [1, 7, 8, 20, 41, 3000] {
        let mut socket = greeted(&server);
        socket.write_all(&frame[..len]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let failure = last_failure(socket);
        assert_failure(&failure, FailureKind::Protocol, "ended within a frame");
    }
    // What was reserved for them is free again.
    crate::common::wait_until("no bytes are reserved", || {
        server.metric("executor_library_bytes") == 0.0
    });
    server.assert_lives();
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let server = Server::start(&[]);
    let bodies: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", "no frame"),
        (&[0, 0, 0, 0, FrameKind::Call as u8, 1, 0, 0], "no frame"),
        (&[0, 0, 0, 0, FrameKind::Call as u8, 0, 0, 0], "too short"),
        (&[0, 0, 0, 0, FrameKind::Library as u8, 0, 0, 0], "too short"),
        (&[0, 0, 0, 0, FrameKind::Welcome as u8, 0, 0, 0], "no request"),
        (&[0, 0, 0, 0, FrameKind::Hello as u8, 0, 0, 0], "no request"),
    ];
    for (bytes, part) in bodies {
        let mut socket = greeted(&server);
        socket.write_all(bytes).unwrap();
        assert_failure(&last_failure(socket), FailureKind::Protocol, part);
    }
    // A name that is longer than the frame, and one that is no UTF-8.
    let head = [0; 32 + 4];
    for (len, name, part) in
        [(200_u16, &b"f"[..], "too short"), (2, b"\xff\xff", "UTF-8"), (2, b"f\n", "control")]
    {
        let mut socket = greeted(&server);
        let body = [&head[..], &len.to_le_bytes(), name].concat();
        write_frame(&mut socket, FrameKind::Call, &body, &[]).unwrap();
        assert_failure(&last_failure(socket), FailureKind::Protocol, part);
    }
    let mut socket = server.raw();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_failure(&last_failure(socket), FailureKind::Protocol, "no frame");
    server.assert_lives();
}

#[test]
fn bytes_of_another_digest_are_refused() {
    let server = Server::start(&[]);
    let mut socket = greeted(&server);
    let announced = Announced { digest: Digest([1; 32]), signature: None, len: 3 };
    socket.write_all(&announced.start_of_frame().unwrap()).unwrap();
    socket.write_all(b"abc").unwrap();
    let header = Header::expect(&mut socket).unwrap();
    let failure = Failure::read(header, &mut socket);
    assert_failure(&failure, FailureKind::Refused, "as announced");
}

#[test]
fn a_client_that_sends_too_slowly_is_let_go() {
    let server = Server::start(&["--frame-timeout", "1"]);
    let mut socket = greeted(&server);
    socket.write_all(&[100, 0, 0, 0, FrameKind::Call as u8, 0, 0, 0, 1]).unwrap();
    let start = Instant::now();
    assert_failure(&last_failure(socket), FailureKind::Connection, "too long");
    assert!(start.elapsed() < Duration::from_secs(10));
    server.assert_lives();
}

#[test]
fn connections_above_the_limit_are_closed() {
    let server = Server::start(&["--max-connections", "2"]);
    let (one, _two) = (server.client(), server.client());
    assert!(server.connect().is_err());
    assert_eq!(server.metric("executor_refused_connections_total"), 1.0);
    drop(one);
    crate::common::wait_until("there is room again", || server.connect().is_ok());
}
