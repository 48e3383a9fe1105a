//! Which code may run: by a list of digests, or by a signature.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::protocol::{Digest, Signature, from_hex};
use crate::{Context, Error};

/// The code that a server runs.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// Any code of a client that is who it says.
    any: bool,
    digests: HashSet<Digest>,
    keys: Vec<[u8; 32]>,
}

impl Policy {
    /// Allows nothing yet, or anything.
    pub(crate) fn new(any: bool) -> Policy {
        Policy { any, ..Policy::default() }
    }

    /// Allows the digests in a file: one a line, as `sha256sum` prints them.
    pub(crate) fn allow_digests(&mut self, path: &Path) -> Result<(), Error> {
        self.digests.extend(lines(path)?.into_iter().map(Digest));
        Ok(())
    }

    /// Allows what one of the keys in a file has signed: an ed25519 public key a line, in hexadecimal.
    pub(crate) fn allow_keys(&mut self, path: &Path) -> Result<(), Error> {
        self.keys.extend(lines(path)?);
        Ok(())
    }

    /// Whether nothing is allowed.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any && self.digests.is_empty() && self.keys.is_empty()
    }

    fn allows(&self, digest: &Digest) -> bool {
        self.any || self.digests.contains(digest)
    }

    /// Checks a file of this machine that a library needs, or opens by `dlopen`. Nobody has sent a signature of it.
    pub(crate) fn check_file(&self, bytes: &[u8]) -> Result<(), String> {
        let digest = Digest::of(bytes);
        match self.allows(&digest) {
            true => Ok(()),
            false => Err(format!("{digest} is not on the server's list")),
        }
    }

    /// Checks a library before anything else reads it. The error is the reason for the refusal.
    pub(crate) fn check(
        &self,
        announced: &Digest,
        signature: Option<&Signature>,
        bytes: &[u8],
    ) -> Result<(), String> {
        let digest = Digest::of(bytes);
        if digest != *announced {
            return Err(format!("its digest is {digest}, not {announced} as announced"));
        }
        if self.allows(&digest) {
            return Ok(());
        }
        let is_by = |key: &[u8; 32], signature: &Signature| {
            UnparsedPublicKey::new(&ED25519, key).verify(bytes, signature).is_ok()
        };
        match signature {
            Some(signature) if self.keys.iter().any(|key| is_by(key, signature)) => Ok(()),
            Some(_) => Err("no key that the server allows has signed it".into()),
            None => Err(format!("{digest} is not on the server's list, and it has no signature")),
        }
    }
}

/// The 32 bytes that each line of a file begins with, in hexadecimal.
fn lines(path: &Path) -> Result<Vec<[u8; 32]>, Error> {
    let text = fs::read_to_string(path).context(|| path.display().to_string())?;
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    let read = |word: &str| {
        from_hex(word)
            .ok_or_else(|| format!("{}: `{word}` has not 64 hexadecimal digits", path.display()))
    };
    Ok(words.filter(|word| !word.starts_with('#')).map(read).collect::<Result<_, _>>()?)
}

/// The pair of keys whose secret half, 32 bytes in hexadecimal, is in a file.
fn key_pair(secret: &Path) -> Result<Ed25519KeyPair, Error> {
    let [seed] = lines(secret)?[..] else {
        return Err(format!("{}: has not one key", secret.display()).into());
    };
    Ed25519KeyPair::from_seed_unchecked(&seed).context(|| secret.display().to_string())
}

/// Signs a library with the secret key in a file.
///
/// # Errors
/// The file cannot be read or has no key.
pub fn sign(secret: &Path, library: &[u8]) -> Result<Signature, Error> {
    let signature = key_pair(secret)?.sign(library);
    Ok(signature.as_ref().try_into()?)
}

/// The public half of the secret key in a file.
///
/// # Errors
/// The file cannot be read or has no key.
pub fn public_key(secret: &Path) -> Result<[u8; 32], Error> {
    Ok(key_pair(secret)?.public_key().as_ref().try_into()?)
}
