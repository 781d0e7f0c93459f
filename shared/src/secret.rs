//! [`Secret`], which no log shows, and [`Vault`], which seals secrets for the metadata store.
//!
//! A request's signature can only be checked with the secret itself, so it cannot be kept as a hash. It is kept sealed:
//! AES-256-GCM under a key of 32 bytes that lies in a file beside the store, never in it. The file may hold older keys behind
//! it: they open what was sealed with them until everything is sealed anew.

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
    #[error(
        "the key file {path} must hold 64 hexadecimal digits on each of at most {MAX_KEYS} lines: `openssl rand -hex 32` makes a line"
    )]
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

/// Most keys of a file.
pub const MAX_KEYS: usize = 4;

/// One key, and those made from it.
struct Key {
    seal: LessSafeKey,
    fingerprint: String,
    media: [u8; 32],
    peer: [u8; 32],
}

impl Key {
    fn new(key: &[u8; 32]) -> Result<Self, VaultError> {
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
        Ok(Key {
            seal: UnboundKey::new(&AES_256_GCM, key)
                .map(LessSafeKey::new)
                .map_err(|_| VaultError::Crypto)?,
            fingerprint: STANDARD.encode(derived(b"aircheck fingerprint\0")),
            media: derived(b"aircheck media links\0"),
            peer: derived(b"aircheck peers\0"),
        })
    }

    fn open(&self, purpose: &str, nonce: &[u8], sealed: &[u8]) -> Option<Secret> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut rest = sealed.to_vec();
        let plain = self
            .seal
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut rest)
            .ok()?;
        String::from_utf8(plain.to_vec()).ok().map(Secret)
    }
}

/// Seals and opens secrets.
pub struct Vault {
    /// What seals.
    key: Key,
    /// What opens besides.
    older: Vec<Key>,
    /// The store's secrets were sealed with another key.
    foreign: bool,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

impl Vault {
    /// Over one key.
    ///
    /// # Errors
    /// [`VaultError::Crypto`], never in practice.
    pub fn new(key: &[u8; 32]) -> Result<Self, VaultError> {
        Vault::with_older(key, &[])
    }

    /// Over a key that seals and opens, and older ones that open.
    ///
    /// # Errors
    /// [`VaultError::Crypto`], never in practice.
    pub fn with_older(key: &[u8; 32], older: &[[u8; 32]]) -> Result<Self, VaultError> {
        Ok(Vault {
            key: Key::new(key)?,
            older: older.iter().map(Key::new).collect::<Result<_, _>>()?,
            foreign: false,
        })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.key).chain(&self.older)
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
        let read = |line: &str| {
            let mut key = [0; 32];
            if line.len() != 64 || !line.is_ascii() {
                return Err(shape());
            }
            for (index, byte) in key.iter_mut().enumerate() {
                let digits = line.get(index * 2..index * 2 + 2).ok_or_else(shape)?;
                *byte = u8::from_str_radix(digits, 16).map_err(|_| shape())?;
            }
            Ok(key)
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<[u8; 32]> = lines.map(read).collect::<Result<_, _>>()?;
        match keys.split_first() {
            Some((key, older)) if keys.len() <= MAX_KEYS => Vault::with_older(key, older),
            _ => Err(shape()),
        }
    }

    /// Where the store's secrets were sealed with another key: it seals nothing and opens nothing.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self
    }

    /// Tells keys apart without telling the key: that of the one that seals.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.key.fingerprint
    }

    /// True if it opens what the key of this fingerprint sealed.
    #[must_use]
    pub fn knows(&self, fingerprint: &[u8]) -> bool {
        self.keys().any(|key| key.fingerprint.as_bytes() == fingerprint)
    }

    /// Keys of their own for links to media: the first signs, all are accepted.
    pub fn media_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys().map(|key| &key.media)
    }

    /// Keys of their own by which coordinators that share this file know each other's word: the first signs, all are accepted.
    pub fn peer_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys().map(|key| &key.peer)
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
            .seal
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
        self.opened(purpose, sealed).map(|(secret, _)| secret)
    }

    /// What was sealed with an older key, sealed with the newest; none where it is already.
    ///
    /// # Errors
    /// As [`Vault::open`] and [`Vault::seal`].
    pub fn reseal(&self, purpose: &str, sealed: &Sealed) -> Result<Option<Sealed>, VaultError> {
        match self.opened(purpose, sealed)? {
            (_, true) => Ok(None),
            (secret, false) => self.seal(purpose, &secret).map(Some),
        }
    }

    /// The secret, and whether the newest key sealed it.
    fn opened(&self, purpose: &str, sealed: &Sealed) -> Result<(Secret, bool), VaultError> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| VaultError::WrongKey)?;
        let (nonce, rest) = bytes.split_at_checked(NONCE_LEN).ok_or(VaultError::WrongKey)?;
        let mut all = self.keys().enumerate();
        let found = all.find_map(|(index, key)| Some((key.open(purpose, nonce, rest)?, index == 0)));
        found.ok_or(VaultError::WrongKey)
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
        assert_ne!(vault.media_keys().next(), other.media_keys().next());
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
    fn an_older_key_opens_until_everything_is_sealed_anew() {
        let (old, new) = ([1; 32], [2; 32]);
        let before = Vault::new(&old).unwrap();
        let both = Vault::with_older(&new, &[old]).unwrap();
        let after = Vault::new(&new).unwrap();
        let sealed = before.seal("p", &Secret::new("s3cret")).unwrap();
        assert_eq!(both.open("p", &sealed).unwrap().reveal(), "s3cret");
        assert!(both.reseal("q", &sealed).is_err(), "the purpose counts");
        assert!(after.open("p", &sealed).is_err());
        let again = both.reseal("p", &sealed).unwrap().unwrap();
        assert_eq!(after.open("p", &again).unwrap().reveal(), "s3cret");
        assert!(before.open("p", &again).is_err());
        assert_eq!(both.reseal("p", &again).unwrap(), None, "once is enough");
        assert!(both.knows(before.fingerprint().as_bytes()) && both.knows(after.fingerprint().as_bytes()));
        assert!(!after.knows(before.fingerprint().as_bytes()));
        assert_eq!(both.fingerprint(), after.fingerprint());
        assert_eq!(both.media_keys().count(), 2);
        assert_eq!(both.peer_keys().next(), after.peer_keys().next());
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
        let (old, new) = ("01".repeat(32), "02".repeat(32));
        std::fs::write(&path, format!("{new}\n\n {old} \n")).unwrap();
        let both = Vault::open_file(&path).unwrap();
        assert_eq!(both.fingerprint(), Vault::new(&[2; 32]).unwrap().fingerprint());
        assert!(both.knows(Vault::new(&[1; 32]).unwrap().fingerprint().as_bytes()));
        let many = format!("{new}\n").repeat(MAX_KEYS + 1);
        for bad in [
            "",
            "\n",
            "00",
            &"zz".repeat(32),
            &"é".repeat(32),
            &format!("{new}\n00"),
            &many,
        ] {
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
