//! What operators do: watch, stop, debug.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{EXECUTOR, Server, call, failure, limited, wait_until, work, work_file};

#[test]
fn a_stop_lets_running_calls_finish() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::start(&[]);
        let mut idle = server.client();
        assert_eq!(call(&mut idle, work(), "count", "").unwrap(), "1");
        let mut client = server.client();
        let napping = thread::spawn(move || call(&mut client, work(), "nap", "700"));
        wait_until("a call runs", || server.metric("executor_running_calls") == 1.0);
        server.signal(signal);
        assert!(server.wait(Duration::from_secs(20)).success());
        assert_eq!(napping.join().unwrap().unwrap(), "slept");
        // The idle connection was closed, and nobody can connect.
        assert!(call(&mut idle, work(), "count", "").is_err());
        assert!(server.connect().is_err() && !server.socket().exists());
        assert!(server.log().contains("stopped\n"), "{}", server.log());
    }
}

#[test]
fn a_stop_does_not_wait_longer_than_it_may() {
    let mut server = Server::start(&["--grace", "1"]);
    let mut client = server.client();
    let napping = thread::spawn(move || call(&mut client, work(), "nap", "60000"));
    wait_until("a call runs", || server.metric("executor_running_calls") == 1.0);
    let start = Instant::now();
    server.signal(libc::SIGTERM);
    assert!(server.wait(Duration::from_secs(20)).success());
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(napping.join().unwrap().is_err());
    assert!(server.log().contains("stopped before all calls had finished calls=1"));
}

#[test]
fn metrics_count_calls_and_failures() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for _ in 0..3 {
        call(&mut client, work(), "upper", "x").unwrap();
    }
    failure(&mut client, work(), "fail", "");
    let expected = [
        ("executor_calls_total", 4.0),
        ("executor_uploads_total", 1.0),
        ("executor_uploaded_bytes_total", work().len() as f64),
        ("executor_libraries", 1.0),
        ("executor_library_bytes", work().len() as f64),
        ("executor_connections", 1.0),
        ("executor_failures_total{kind=\"function\"}", 1.0),
        ("executor_failures_total{kind=\"crash\"}", 0.0),
        ("executor_call_seconds_count{temperature=\"cold\"}", 1.0),
        ("executor_call_seconds_count{temperature=\"warm\"}", 3.0),
        ("executor_images", 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(server.metric(name), value, "{name}");
    }
    assert!(server.metric("executor_call_seconds_sum{temperature=\"cold\"}") > 0.0);
}

#[test]
fn the_load_test_prints_a_table() {
    let library = work_file().to_str().unwrap();
    for mode in ["pool", "fork"] {
        let small = ["--clients", "4", "--calls", "80", "--turns", "2", "--cold-every", "5"];
        let mut load = limited(60, EXECUTOR);
        let output = load.args(["load", "--mode", mode]).args(small);
        let output = output.args([library, "upper", "text"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for row in
            ["memdl | cold | 16", "memdl | warm | 64", "dlopen | cold | 16", "dlopen | warm | 64"]
        {
            assert!(text.contains(row), "no `{row}` in\n{text}");
        }
    }
}
