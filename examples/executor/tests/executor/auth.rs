//! Who may call, and which code may run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use memdl_executor::arguments::{ServerAddress, TlsOptions};
use memdl_executor::auth::SharedKey;
use memdl_executor::client::{Client, Library};
use memdl_executor::protocol::{FailureKind, Nonce};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::common::{
    EXECUTOR, Server, assert_failure, call, compile, failure, folder, limited, work, work_file,
    work_with,
};

/// An authority, and what it has signed, in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(folder: &Path, name: &'static str) -> Authority {
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer =
            CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Authority { issuer, folder: folder.into(), name }
    }

    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// The files of a certificate and its key.
    fn sign(&self, name: &str) -> [PathBuf; 2] {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let files = ["pem", "key"].map(|end| self.folder.join(format!("{name}.{end}")));
        fs::write(&files[0], certificate.pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    }
}

/// A server with TLS, and its authority.
fn tls_server() -> (Server, Authority) {
    let folder = folder();
    let authority = Authority::new(&folder, "authority");
    let [certificate, key] = authority.sign("server");
    let [authority_file, certificate, key] =
        [authority.file(), certificate, key].map(|it| it.to_str().unwrap().to_owned());
    let options = ["--allow-any", "--tcp", "127.0.0.1:0", "--tls-authority", &authority_file];
    let files = ["--tls-certificate", &certificate, "--tls-key", &key];
    (Server::start_in(folder, &[&options[..], &files].concat()), authority)
}

fn address(
    server: &Server,
    authority: &Authority,
    [certificate, key]: [PathBuf; 2],
) -> ServerAddress {
    let port = server.address("tcp").rsplit_once(':').unwrap().1.to_owned();
    ServerAddress {
        unix: None,
        key: None,
        tcp: Some(format!("localhost:{port}")),
        tls: TlsOptions {
            tls_authority: Some(authority.file()),
            tls_certificate: Some(certificate),
            tls_key: Some(key),
        },
    }
}

#[test]
fn a_client_with_a_certificate_of_the_authority_is_served() {
    let (server, authority) = tls_server();
    let mut client =
        Client::connect(&address(&server, &authority, authority.sign("client"))).unwrap();
    assert_eq!(call(&mut client, work(), "upper", "over tls").unwrap(), "OVER TLS");
    // More than a TLS record in both directions.
    let input = "x".repeat(100_000);
    let output = client.call(work(), "upper", input.as_bytes(), 100_000, &mut |_| {}).unwrap();
    assert_eq!(output, input.to_uppercase().into_bytes());
    // A client that goes away is no failure.
    drop(client);
    crate::common::wait_until("it is gone", || server.metric("executor_connections") == 0.0);
    assert_eq!(server.metric("executor_failures_total{kind=\"protocol\"}"), 0.0);
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let (server, authority) = tls_server();
    let stranger = Authority::new(&server.folder, "stranger").sign("other");
    let refused = Client::connect(&address(&server, &authority, stranger)).err().unwrap();
    assert!(refused.to_string().contains("localhost"), "{refused}");
    crate::common::wait_until("the refusal is counted", || {
        server.metric("executor_failures_total{kind=\"unauthenticated\"}") == 1.0
    });
    server.assert_lives();
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let (server, authority) = tls_server();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = server.address("tcp").replace("127.0.0.1", "localhost");
    let refused = Client::tcp(&address, &std::sync::Arc::new(config)).err().unwrap();
    assert_failure(&refused, FailureKind::Unauthenticated, "localhost");
    server.assert_lives();
}

#[test]
fn a_client_does_not_take_a_server_of_another_authority() {
    let (server, authority) = tls_server();
    let client = authority.sign("client");
    let stranger = Authority::new(&server.folder, "stranger");
    let refused = Client::connect(&address(&server, &stranger, client)).err().unwrap();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[test]
fn plain_bytes_on_the_tls_port_end_the_connection() {
    use std::io::{Read, Write};
    let (server, _authority) = tls_server();
    let mut socket = std::net::TcpStream::connect(server.address("tcp")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // An alert at most, and then the end.
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(answer.len() < 100, "{answer:?}");
    server.assert_lives();
}

#[test]
fn a_client_with_another_key_is_refused() {
    let server = Server::start(&[]);
    let other = server.folder.join("other-key");
    fs::write(&other, "another key of thirty-two bytes!").unwrap();
    let refused = Client::unix(&server.socket(), &SharedKey::from_file(&other).unwrap()).err();
    assert_failure(&refused.unwrap(), FailureKind::Unauthenticated, "another key");
    crate::common::wait_until("the refusal is counted", || {
        server.metric("executor_failures_total{kind=\"unauthenticated\"}") == 1.0
    });
    server.assert_lives();
}

#[test]
fn a_proof_of_another_connection_is_refused() {
    use memdl_executor::protocol::{FrameKind, Header, Hello, VERSION, write_frame};
    let server = Server::start(&[]);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
    let challenge = |socket: &mut std::os::unix::net::UnixStream| -> Nonce {
        Hello { version: VERSION, nonce: [7; 32] }.write(socket).unwrap();
        Header::expect(socket).unwrap().body(socket, 32).unwrap().try_into().unwrap()
    };
    let (mut one, mut other) = (server.raw(), server.raw());
    let (nonce, _) = (challenge(&mut one), challenge(&mut other));
    let message = [&b"memdl-executor client 1"[..], &[7; 32], &nonce].concat();
    let proof = ring::hmac::sign(&key, &message);
    write_frame(&mut other, FrameKind::Proof, proof.as_ref(), &[]).unwrap();
    assert_eq!(Header::expect(&mut other).unwrap().kind, FrameKind::Failure);
    write_frame(&mut one, FrameKind::Proof, proof.as_ref(), &[]).unwrap();
    assert_eq!(Header::expect(&mut one).unwrap().kind, FrameKind::Welcome);
}

#[test]
fn a_short_key_is_no_key() {
    let folder = folder();
    let path = folder.join("short");
    fs::write(&path, "too short").unwrap();
    let error = SharedKey::from_file(&path).err().unwrap().to_string();
    assert!(error.contains("memdl-executor secret"), "{error}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn only_what_is_on_the_list_runs() {
    for loader in ["memdl", "memfd"] {
        let folder = folder();
        let list = folder.join("list");
        let list = list.to_str().unwrap();
        fs::write(list, format!("# ours\n{}  libwork.so\n", work().digest())).unwrap();
        let server = Server::start_in(folder, &["--loader", loader, "--allow-digests", list]);
        let mut client = server.client();
        assert_eq!(call(&mut client, work(), "upper", "listed").unwrap(), "LISTED");
        let other = failure(&mut client, &work_with(b"changed"), "upper", "");
        assert_failure(&other, FailureKind::Refused, "is not on the server's list");
        assert_eq!(server.metric("executor_failures_total{kind=\"refused\"}"), 1.0);
        assert_eq!(call(&mut client, work(), "upper", "still").unwrap(), "STILL");
    }
}

fn executor(arguments: &[&str]) -> Output {
    limited(30, EXECUTOR).args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = executor(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands of the README, from the secret to the call.
#[test]
fn only_what_was_signed_runs() {
    let folder = folder();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ours, theirs, keys) = (path("ours"), path("theirs"), path("keys"));
    fs::write(&ours, printed(&["secret"])).unwrap();
    fs::write(&theirs, printed(&["secret"])).unwrap();
    fs::write(&keys, printed(&["public-key", "--secret", &ours])).unwrap();
    let (socket, key) = (path("socket"), path("key"));
    let _server = Server::start_in(folder.clone(), &["--allow-keys", &keys]);
    let library = work_file().to_str().unwrap();
    let to_server = ["call", "--progress", "--unix", &socket, "--key", &key];
    let run = |signing: &[&str]| {
        executor(&[&to_server[..], signing, &[library, "upper", "signed"]].concat())
    };
    let refusals =
        [(&[][..], "has no signature"), (&["--secret", &theirs], "no key that the server")];
    for (signing, part) in refusals {
        let refused = run(signing);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains(part), "{text}");
    }
    let accepted = run(&["--secret", &ours]);
    assert_eq!(String::from_utf8_lossy(&accepted.stdout), "SIGNED");
    // The library was verified. Who may call may call it now.
    assert_eq!(String::from_utf8_lossy(&run(&[]).stdout), "SIGNED");
}

#[test]
fn a_server_that_would_run_nothing_does_not_start() {
    let folder = folder();
    fs::write(folder.join("key"), "0123456789abcdef0123456789abcdef").unwrap();
    let (socket, key) = (folder.join("socket"), folder.join("key"));
    let [socket, key] = [&socket, &key].map(|it| it.to_str().unwrap());
    let output = executor(&["serve", "--unix", socket, "--key", key]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("--allow-digests"), "{text}");
    fs::remove_dir_all(folder).unwrap();
}

/// A library cannot bring in by `dlopen` what it could not be itself.
#[test]
fn what_a_library_opens_is_checked_as_well() {
    let folder = folder();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (source, opener, list) = (path("opener.c"), path("opener.so"), path("list"));
    let text = "#include <dlfcn.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n\
        size_t opens(const uint8_t *in, size_t in_len, uint8_t *out, size_t capacity) {\n\
        char path[512] = \"\";\n memcpy(path, in, in_len < 511 ? in_len : 511);\n\
        return snprintf((char *)out, capacity, \"%s\", dlopen(path, RTLD_NOW) ? \"open\" : dlerror()); }\n";
    fs::write(&source, text).unwrap();
    let file = compile(Path::new(&source), Path::new(&opener));
    let library = Library::new(fs::read(file).unwrap());
    let opened = work_file().to_str().unwrap();

    fs::write(&list, library.digest().to_string()).unwrap();
    let server = Server::start_in(folder.clone(), &["--allow-digests", &list]);
    let said = call(&mut server.client(), &library, "opens", opened).unwrap();
    assert!(said.contains("is not on the server's list"), "{said}");
    drop(server);

    let server = Server::start(&[]);
    assert_eq!(call(&mut server.client(), &library, "opens", opened).unwrap(), "open");
}
