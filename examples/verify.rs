//! Loads only what is on a list of SHA-256 digests, or what an Ed25519 key has signed.

use std::collections::HashSet;
use std::error::Error;
use std::ffi::c_int;
use std::path::Path;
use std::process::Command;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use memdl::{Library, Loader};
use sha2::{Digest, Sha256};

/// A loader of what has one of these digests, whatever needs it.
fn listed(digests: HashSet<[u8; 32]>) -> Loader {
    Loader::new().verify(move |image| {
        match digests.contains(&<[u8; 32]>::from(Sha256::digest(image.bytes()))) {
            true => Ok(()),
            false => Err("its digest is not on the list".into()),
        }
    })
}

/// A loader of what this key has signed. The signature comes with the image, beside its bytes.
fn signed(key: VerifyingKey, signature: Signature) -> Loader {
    Loader::new().verify(move |image| Ok(key.verify_strict(image.bytes(), &signature)?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let bytes = compiled()?;

    let loader = listed(HashSet::from([Sha256::digest(&bytes).into()]));
    // SAFETY: only what is on our list is loaded, and we trust that.
    println!("on the list: {}", call(&unsafe { loader.load(&bytes)? })?);
    let mut changed = bytes.clone();
    changed[100] ^= 1;
    // SAFETY: as above.
    match unsafe { loader.load(&changed) } {
        Ok(_) => println!("changed: loaded"),
        Err(error) => println!("changed: {error}"),
    }

    // The owner of the key does this, elsewhere; the host has the public half only.
    let (ours, theirs) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
    let loader = signed(ours.verifying_key(), ours.sign(&bytes));
    // SAFETY: only what we have signed is loaded, and we trust that.
    println!("signed: {}", call(&unsafe { loader.load(&bytes)? })?);
    let loader = signed(ours.verifying_key(), theirs.sign(&bytes));
    // SAFETY: as above.
    match unsafe { loader.load(&bytes) } {
        Ok(_) => println!("signed by somebody else: loaded"),
        Err(error) => println!("signed by somebody else: {error}"),
    }
    Ok(())
}

fn call(library: &Library) -> Result<String, memdl::Error> {
    // SAFETY: this is the type of `foo` in testlibs/foo.c, and it has no preconditions.
    let result = unsafe { library.get::<unsafe extern "C" fn(c_int) -> c_int>("foo")?(42) };
    Ok(format!("foo(42) = {result}"))
}

/// The library that this example loads: testlibs/foo.c, compiled.
fn compiled() -> Result<Vec<u8>, Box<dyn Error>> {
    let output = std::env::temp_dir().join(format!("memdl-verify-{}.so", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testlibs/foo.c");
    let mut cc = Command::new("cc");
    if !cc.args(["-shared", "-fPIC", "-o"]).arg(&output).arg(source).status()?.success() {
        return Err("cc failed".into());
    }
    let bytes = std::fs::read(&output)?;
    std::fs::remove_file(&output)?;
    Ok(bytes)
}
