//! [`Secret`], which no log shows, and [`Vault`], which seals secrets for the metadata store.
//!
//! A request's signature can only be checked with the secret itself, so it cannot be kept as a hash. It is kept sealed:
//! AES-256-GCM under one key of 32 bytes that lies in a file beside the store, never in it.

use std::{
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What must not be shown: it prints as `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, to be handed to whom it is for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret as it lies in the store: base64 of nonce, ciphertext and tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

/// Why a vault cannot be used.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The file cannot be read or made.
    #[error("cannot use the key file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not one.
    #[error("the key file {path} must hold 64 hexadecimal digits: `openssl rand -hex 32` makes them")]
    Shape {
        /// Which.
        path: PathBuf,
    },
    /// The system gives no random bytes, or the key does not work.
    #[error("the system's cryptography failed")]
    Crypto,
    /// Sealed with another key, for another purpose, or damaged.
    #[error(
        "what lies in the metadata store was sealed with another key: give every coordinator the same coordinator.secrets_key_file"
    )]
    WrongKey,
}

/// Seals and opens secrets.
pub struct Vault {
    key: LessSafeKey,
    fingerprint: String,
    media_key: [u8; 32],
    peer_key: [u8; 32],
    /// The store's secrets were sealed with another key.
    foreign: bool,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

impl Vault {
    /// Over a key.
    ///
    /// # Errors
    /// [`VaultError::Crypto`], never in practice.
    pub fn new(key: &[u8; 32]) -> Result<Self, VaultError> {
        let derived = |purpose: &[u8]| {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(purpose);
            context.update(key);
            let mut out = [0; 32];
            out.iter_mut()
                .zip(context.finish().as_ref())
                .for_each(|(to, from)| *to = *from);
            out
        };
        let fingerprint = derived(b"aircheck fingerprint\0");
        Ok(Vault {
            key: UnboundKey::new(&AES_256_GCM, key)
                .map(LessSafeKey::new)
                .map_err(|_| VaultError::Crypto)?,
            fingerprint: STANDARD.encode(fingerprint),
            media_key: derived(b"aircheck media links\0"),
            peer_key: derived(b"aircheck peers\0"),
            foreign: false,
        })
    }

    /// Over the key in a file; a file that is not there is made, for its owner alone.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open_file(path: &Path) -> Result<Self, VaultError> {
        let at = |source| VaultError::File {
            path: path.to_owned(),
            source,
        };
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_file(path)?,
            other => other.map_err(at)?,
        };
        let shape = || VaultError::Shape { path: path.to_owned() };
        let text = text.trim();
        if text.len() != 64 || !text.is_ascii() {
            return Err(shape());
        }
        let mut key = [0; 32];
        for (index, byte) in key.iter_mut().enumerate() {
            let digits = text.get(index * 2..index * 2 + 2).ok_or_else(shape)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| shape())?;
        }
        Vault::new(&key)
    }

    /// Where the store's secrets were sealed with another key: it seals nothing and opens nothing.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self
    }

    /// Tells keys apart without telling the key.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A key of its own for signing links to media.
    #[must_use]
    pub fn media_key(&self) -> &[u8; 32] {
        &self.media_key
    }

    /// A key of its own by which coordinators that share this one know each other's word.
    #[must_use]
    pub fn peer_key(&self) -> &[u8; 32] {
        &self.peer_key
    }

    /// Seals a secret for one purpose, such as the record that it is part of; it opens for no other.
    ///
    /// # Errors
    /// [`VaultError::Crypto`]; [`VaultError::WrongKey`] for a foreign one.
    pub fn seal(&self, purpose: &str, secret: &Secret) -> Result<Sealed, VaultError> {
        if self.foreign {
            return Err(VaultError::WrongKey);
        }
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::Crypto)?;
        let mut bytes = secret.0.clone().into_bytes();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| VaultError::Crypto)?;
        let mut out = nonce.to_vec();
        out.append(&mut bytes);
        Ok(Sealed(STANDARD.encode(out)))
    }

    /// Opens what was sealed for the same purpose.
    ///
    /// # Errors
    /// [`VaultError::WrongKey`].
    pub fn open(&self, purpose: &str, sealed: &Sealed) -> Result<Secret, VaultError> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| VaultError::WrongKey)?;
        let (nonce, rest) = bytes.split_at_checked(NONCE_LEN).ok_or(VaultError::WrongKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::WrongKey)?;
        let mut rest = rest.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut rest)
            .map_err(|_| VaultError::WrongKey)?;
        String::from_utf8(plain.to_vec())
            .map(Secret)
            .map_err(|_| VaultError::WrongKey)
    }
}

/// Letters and digits from the system's random bytes.
///
/// # Errors
/// [`VaultError::Crypto`].
pub fn random_text(len: usize) -> Result<String, VaultError> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut out = String::with_capacity(len);
    let random = SystemRandom::new();
    while out.len() < len {
        let mut bytes = [0; 64];
        random.fill(&mut bytes).map_err(|_| VaultError::Crypto)?;
        // 248 is the last multiple of 62 in a byte: above it some letters would come more often.
        let letters = bytes.iter().filter(|byte| **byte < 248);
        out.extend(
            letters
                .filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()))
                .map(|letter| char::from(*letter))
                .take(len - out.len()),
        );
    }
    Ok(out)
}

fn make_file(path: &Path) -> Result<String, VaultError> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| VaultError::Crypto)?;
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let write = || {
        // First beside it: a file that is there is whole.
        let temp = path.with_extension("tmp");
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&temp, path)
    };
    write().map_err(|source| VaultError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_key_alone() {
        let vault = Vault::new(&[1; 32]).unwrap();
        let sealed = vault.seal("key/a", &Secret::new("s3cret")).unwrap();
        assert_eq!(vault.open("key/a", &sealed).unwrap().reveal(), "s3cret");
        assert!(matches!(vault.open("key/b", &sealed), Err(VaultError::WrongKey)));
        let other = Vault::new(&[2; 32]).unwrap();
        assert!(matches!(other.open("key/a", &sealed), Err(VaultError::WrongKey)));
        assert_ne!(vault.fingerprint(), other.fingerprint());
        assert_ne!(vault.media_key(), other.media_key());
        assert_ne!(
            sealed,
            vault.seal("key/a", &Secret::new("s3cret")).unwrap(),
            "a fresh nonce each time"
        );
        for damaged in ["", "AAAA", "!"] {
            assert!(vault.open("key/a", &Sealed(damaged.to_owned())).is_err());
        }
    }

    #[test]
    fn no_debug_form_shows_a_secret() {
        let vault = Vault::new(&[1; 32]).unwrap();
        let secret = Secret::new("s3cret");
        let sealed = vault.seal("p", &secret).unwrap();
        for text in [format!("{secret:?}"), format!("{vault:?}"), format!("{sealed:?}")] {
            assert!(!text.contains("s3cret") && !text.contains("0101"), "{text}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_and_read_back() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        let made = Vault::open_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.fingerprint(), Vault::open_file(&path).unwrap().fingerprint());
        for bad in ["", "00", &"zz".repeat(32), &"é".repeat(32)] {
            std::fs::write(&path, bad).unwrap();
            assert!(
                matches!(Vault::open_file(&path), Err(VaultError::Shape { .. })),
                "{bad}"
            );
        }
        assert!(matches!(
            Vault::open_file(&dir.path().join("none/key")),
            Err(VaultError::File { .. })
        ));
    }

    #[test]
    fn random_text_has_its_length_and_differs() {
        let text = random_text(40).unwrap();
        assert!(text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(text, random_text(40).unwrap());
    }
}
