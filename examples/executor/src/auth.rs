//! Who is who: certificates over TCP, a key that both have over a Unix socket.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::protocol::{Failure, FailureKind, Mac, Nonce};
use crate::{Context, Error};

/// The fewest bytes that a key file has.
const SHORTEST_KEY: usize = 32;

/// The key that both sides of a Unix socket have.
#[derive(Clone)]
pub struct SharedKey(hmac::Key);

/// Who proves that it has the key. The roles differ, so that nobody can pass the other's proof off as its own.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Client,
    Server,
}

impl SharedKey {
    /// The key in a file: its text, without the space around it. `memdl-executor secret` makes one.
    ///
    /// # Errors
    /// The file cannot be read or is too short.
    pub fn from_file(path: &Path) -> Result<SharedKey, Error> {
        let text = fs::read(path).context(|| path.display().to_string())?;
        let key = text.trim_ascii();
        if key.len() < SHORTEST_KEY {
            let path = path.display();
            return Err(format!(
                "{path}: a key has {SHORTEST_KEY} bytes or more: make one with `memdl-executor secret`"
            )
            .into());
        }
        Ok(SharedKey(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// The proof that whoever makes it has the key, in this one connection.
    pub(crate) fn proof(&self, role: Role, client: &Nonce, server: &Nonce) -> Mac {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.0, &message(role, client, server)).as_ref());
        mac
    }

    /// Compares in constant time.
    pub(crate) fn verify(
        &self,
        role: Role,
        client: &Nonce,
        server: &Nonce,
        proof: &Mac,
    ) -> Result<(), Failure> {
        hmac::verify(&self.0, &message(role, client, server), proof).map_err(|_| {
            let who = match role {
                Role::Client => "the client has another key: give it the server's key file",
                Role::Server => "the server has another key: check the socket and the key file",
            };
            Failure::new(FailureKind::Unauthenticated, who)
        })
    }
}

fn message(role: Role, client: &Nonce, server: &Nonce) -> Vec<u8> {
    let role = match role {
        Role::Client => &b"memdl-executor client 1"[..],
        Role::Server => &b"memdl-executor server 1"[..],
    };
    [role, client, server].concat()
}

/// 32 random bytes.
///
/// # Errors
/// The system has none.
pub fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random bytes")?;
    Ok(bytes)
}

/// The files of one side of TLS, all in PEM.
#[derive(Clone, Copy)]
pub struct TlsFiles<'a> {
    /// The authority that has signed the other side's certificate.
    pub authority: &'a Path,
    /// This side's certificate, and those up to its authority.
    pub certificate: &'a Path,
    /// This side's private key.
    pub key: &'a Path,
}

impl TlsFiles<'_> {
    fn authorities(&self) -> Result<Arc<RootCertStore>, Error> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(self.authority)? {
            store.add(certificate).context(|| self.authority.display().to_string())?;
        }
        Ok(Arc::new(store))
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_file(self.key).context(|| self.key.display().to_string())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.context(|| path.display().to_string())?;
    match found.is_empty() {
        false => Ok(found),
        true => Err(format!("{}: has no certificate in PEM", path.display()).into()),
    }
}

/// TLS of a server that takes only clients with a certificate of the authority.
pub(crate) fn server_config(files: TlsFiles<'_>) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(files.authorities()?, provider.clone())
            .build()
            .context(|| files.authority.display().to_string())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(files.certificate)?, files.key()?)
        .context(|| files.certificate.display().to_string())?;
    Ok(Arc::new(config))
}

/// TLS of a client that shows a certificate, and takes only a server with one of the authority.
///
/// # Errors
/// A file cannot be read, or does not fit the others.
pub fn client_config(files: TlsFiles<'_>) -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(files.authorities()?)
        .with_client_auth_cert(certificates(files.certificate)?, files.key()?)
        .context(|| files.certificate.display().to_string())?;
    Ok(Arc::new(config))
}
