//! What operators see: counters and histograms, in the text format of Prometheus.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::protocol::{Failure, FailureKind};
use crate::stream::Timed;

/// What has happened since the start.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) calls: Counter,
    pub(crate) uploads: Counter,
    pub(crate) uploaded_bytes: Counter,
    pub(crate) refused_connections: Counter,
    pub(crate) cold: Histogram,
    pub(crate) warm: Histogram,
    failures: [Counter; FailureKind::ALL.len()],
}

/// What is so at this moment.
pub(crate) struct Gauges {
    pub(crate) libraries: usize,
    pub(crate) library_bytes: usize,
    pub(crate) connections: usize,
    pub(crate) running_calls: usize,
}

/// A number that grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; 14] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000,
    10_000_000,
];

/// How often something took how long.
#[derive(Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BOUNDS.len()],
    count: Counter,
    nanoseconds: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let fits = |bound: &u64| time <= Duration::from_micros(*bound);
        let first = BOUNDS.iter().position(fits);
        if let Some(bucket) = first.and_then(|it| self.buckets.get(it)) {
            bucket.add(1);
        }
        self.count.add(1);
        self.nanoseconds.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn write(&self, text: &mut String, name: &str, label: &str) {
        let mut sum = 0_u64;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            sum = sum.saturating_add(bucket.get());
            let seconds = Duration::from_micros(*bound).as_secs_f64();
            line(text, format_args!("{name}_bucket{{{label},le=\"{seconds}\"}} {sum}"));
        }
        let count = self.count.get();
        line(text, format_args!("{name}_bucket{{{label},le=\"+Inf\"}} {count}"));
        let seconds = Duration::from_nanos(self.nanoseconds.get()).as_secs_f64();
        line(text, format_args!("{name}_sum{{{label}}} {seconds}"));
        line(text, format_args!("{name}_count{{{label}}} {count}"));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

impl Metrics {
    /// Counts a failure.
    pub(crate) fn failed(&self, failure: &Failure) {
        let kinds = FailureKind::ALL.iter().zip(&self.failures);
        kinds.filter(|(kind, _)| **kind == failure.kind).for_each(|(_, counter)| counter.add(1));
    }

    fn failures(&self, kind: FailureKind) -> u64 {
        let found = FailureKind::ALL.iter().zip(&self.failures).find(|(it, _)| **it == kind);
        found.map_or(0, |(_, counter)| counter.get())
    }

    /// The page that Prometheus reads.
    pub(crate) fn page(&self, now: &Gauges) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            line(
                &mut text,
                format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"),
            );
        };
        let loaded = memdl::statistics();
        one("executor_calls_total", "counter", "Calls, failed ones too.", self.calls.get());
        one("executor_uploads_total", "counter", "Libraries received.", self.uploads.get());
        let bytes = self.uploaded_bytes.get();
        one("executor_uploaded_bytes_total", "counter", "Bytes of libraries received.", bytes);
        let crashes = self.failures(FailureKind::Crash);
        one("executor_crashes_total", "counter", "Functions that crashed.", crashes);
        let refused = self.refused_connections.get();
        one(
            "executor_refused_connections_total",
            "counter",
            "Connections above the limit.",
            refused,
        );
        one("executor_connections", "gauge", "Open connections.", now.connections as u64);
        one("executor_running_calls", "gauge", "Calls that run.", now.running_calls as u64);
        one("executor_libraries", "gauge", "Libraries ready to be called.", now.libraries as u64);
        one("executor_library_bytes", "gauge", "Bytes of these.", now.library_bytes as u64);
        one("executor_images", "gauge", "Images of memdl in this process.", loaded.images as u64);
        one("executor_mapped_bytes", "gauge", "Addresses of these.", loaded.mapped_bytes as u64);

        text.push_str("# HELP executor_failures_total Requests that failed.\n");
        text.push_str("# TYPE executor_failures_total counter\n");
        for (kind, counter) in FailureKind::ALL.iter().zip(&self.failures) {
            let (kind, count) = (kind.name(), counter.get());
            line(&mut text, format_args!("executor_failures_total{{kind=\"{kind}\"}} {count}"));
        }
        text.push_str(
            "# HELP executor_call_seconds Cold: load and first call. Warm: a later call.\n",
        );
        text.push_str("# TYPE executor_call_seconds histogram\n");
        self.cold.write(&mut text, "executor_call_seconds", "temperature=\"cold\"");
        self.warm.write(&mut text, "executor_call_seconds", "temperature=\"warm\"");
        text
    }
}

/// Answers HTTP requests with the page, one after the other, for ever.
pub(crate) fn serve(listener: &TcpListener, page: impl Fn() -> String) {
    for socket in listener.incoming() {
        if let Err(error) = socket.and_then(|socket| answer(socket, &page)) {
            warn!(%error, "a request for metrics failed");
        }
    }
}

fn answer(socket: TcpStream, page: impl Fn() -> String) -> io::Result<()> {
    const LONGEST_REQUEST: usize = 8 << 10;
    let deadline = Instant::now().checked_add(Duration::from_secs(2));
    let mut stream = Timed::new(socket, deadline.ok_or(io::ErrorKind::TimedOut)?);
    let mut request = Vec::new();
    // The end of the headers.
    while !request.windows(4).any(|it| it == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let len = stream.read(&mut part)?;
        request.extend_from_slice(part.get(..len).unwrap_or_default());
        if len == 0 || request.len() > LONGEST_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let (status, body) = match request.starts_with(b"GET /metrics ") {
        true => ("200 OK", page()),
        false => ("404 Not Found", "the only page is /metrics\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        for micros in [10, 30, 60_000_000] {
            metrics.warm.observe(Duration::from_micros(micros));
        }
        metrics.failed(&Failure::new(FailureKind::Crash, "SIGSEGV"));
        let now = Gauges { libraries: 2, library_bytes: 3, connections: 4, running_calls: 5 };
        let page = metrics.page(&now);
        for line in [
            "executor_call_seconds_bucket{temperature=\"warm\",le=\"0.000025\"} 1",
            "executor_call_seconds_bucket{temperature=\"warm\",le=\"10\"} 2",
            "executor_call_seconds_bucket{temperature=\"warm\",le=\"+Inf\"} 3",
            "executor_call_seconds_sum{temperature=\"warm\"} 60.00004",
            "executor_failures_total{kind=\"crash\"} 1",
            "executor_crashes_total 1",
            "executor_library_bytes 3",
        ] {
            assert!(page.lines().any(|it| it == line), "no `{line}` in:\n{page}");
        }
    }
}
