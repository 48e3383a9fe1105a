//! Functions that run in the server's process.

use std::thread;

use memdl_executor::protocol::FailureKind;

use crate::common::{Server, assert_failure, call, failure, work, work_with};

#[test]
fn a_library_is_sent_once_and_called_by_all() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.try_call(work().digest(), "upper", b"a", 10).unwrap(), None);
    let mut sent = Vec::new();
    let output = client.call(work(), "upper", b"text", 10, &mut |bytes| sent.push(bytes)).unwrap();
    assert_eq!(output, b"TEXT");
    assert_eq!(sent.last(), Some(&work().len()));
    // Another client does not send it.
    let other = server.client().try_call(work().digest(), "upper", b"again", 10).unwrap();
    assert_eq!(other.as_deref(), Some(&b"AGAIN"[..]));
    assert_eq!(server.metric("executor_uploads_total"), 1.0);
}

#[test]
fn calls_do_not_see_each_other() {
    let server = Server::start(&[]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..50 {
                    assert_eq!(call(&mut client, work(), "count", "").unwrap(), "1");
                }
            });
        }
    });
}

#[test]
fn a_memfd_is_called_as_well() {
    let server = Server::start(&["--loader", "memfd"]);
    let mut client = server.client();
    assert_eq!(call(&mut client, work(), "divide", "84 2").unwrap(), "42");
    assert_failure(&failure(&mut client, work(), "none", ""), FailureKind::NoFunction, "`none`");
    let malformed = memdl_executor::client::Library::new(&b"not a library"[..]);
    let failed = failure(&mut client, &malformed, "f", "");
    assert_failure(&failed, FailureKind::NotLoaded, "file too short");
}

#[test]
fn failures_name_the_reason_and_leave_the_connection_open() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_failure(&failure(&mut client, work(), "none", ""), FailureKind::NoFunction, "`none`");
    // What the library uses is not what it offers.
    assert_failure(&failure(&mut client, work(), "abort", ""), FailureKind::NoFunction, "`abort`");
    assert_failure(&failure(&mut client, work(), "data", ""), FailureKind::NoFunction, "`data`");
    assert_failure(&failure(&mut client, work(), "fail", ""), FailureKind::Function, "fail failed");
    let malformed = memdl_executor::client::Library::new(&b"not a library"[..]);
    let failed = failure(&mut client, &malformed, "f", "");
    assert_failure(&failed, FailureKind::NotLoaded, "not an ELF file");
    let cut = memdl_executor::client::Library::new(
        &std::fs::read(crate::common::work_file()).unwrap()[..5000],
    );
    assert_failure(&failure(&mut client, &cut, "f", ""), FailureKind::NotLoaded, "malformed");
    let empty = memdl_executor::client::Library::new(&b""[..]);
    assert_failure(&failure(&mut client, &empty, "f", ""), FailureKind::NotLoaded, "malformed");
    assert_eq!(call(&mut client, work(), "upper", "still").unwrap(), "STILL");
}

#[test]
fn the_library_that_was_not_used_for_longest_goes() {
    let len = work().len();
    let server = Server::start(&["--memory", &(3 * len + 100).to_string()]);
    let mut client = server.client();
    let libraries: Vec<_> = (0..3).map(|number| work_with(&[number])).collect();
    for library in &libraries {
        assert_eq!(call(&mut client, library, "count", "").unwrap(), "1");
    }
    let is_there = |number: usize| {
        let found = server.client().try_call(libraries[number].digest(), "count", b"", 10);
        found.unwrap().is_some()
    };
    assert!(is_there(0));
    let fourth = work_with(&[3]);
    assert_eq!(call(&mut client, &fourth, "count", "").unwrap(), "1");
    assert_eq!([0, 1, 2].map(is_there), [true, false, true]);
    assert_eq!(server.metric("executor_libraries"), 3.0);
    let bytes = server.metric("executor_library_bytes");
    assert_eq!(bytes, (3 * (len + 1)) as f64);
}

#[test]
fn a_library_in_use_is_not_dropped_under_its_call() {
    let server = Server::start(&["--memory", &(work().len() + 100).to_string()]);
    thread::scope(|scope| {
        let napping = scope.spawn(|| call(&mut server.client(), work(), "nap", "1500"));
        crate::common::wait_until("a call runs", || server.metric("executor_running_calls") == 1.0);
        let mut client = server.client();
        let refused = failure(&mut client, &work_with(b"other"), "count", "");
        assert_failure(&refused, FailureKind::Memory, "libraries in use");
        assert_eq!(napping.join().unwrap().unwrap(), "slept");
        // The connection goes on, and now there is room.
        assert_eq!(call(&mut client, &work_with(b"other"), "count", "").unwrap(), "1");
    });
}

#[test]
fn more_calls_than_allowed_are_refused() {
    let server = Server::start(&["--max-calls", "1"]);
    thread::scope(|scope| {
        let napping = scope.spawn(|| call(&mut server.client(), work(), "nap", "1000"));
        crate::common::wait_until("a call runs", || server.metric("executor_running_calls") == 1.0);
        let mut client = server.client();
        assert_failure(&failure(&mut client, work(), "count", ""), FailureKind::Busy, "later");
        assert_eq!(napping.join().unwrap().unwrap(), "slept");
        assert_eq!(call(&mut client, work(), "count", "").unwrap(), "1");
    });
}
