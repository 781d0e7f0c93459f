//! What people do with callbacks and events: change the book, look at what was told, send it once more.

use shared::{
    secret::{Sealed, Secret, Vault, VaultError},
    store::{Guard, Repo, Revision, Scan, StoreError, Txn, keys},
    time::Timestamp,
};

use super::{
    book::{Book, BookError, KEY_PURPOSE},
    letter::{Event, Letter, Outcome},
    teller::place_at,
};

/// How often a change is tried again when another was quicker.
const ATTEMPTS: usize = 16;
/// Longest key of a callback template, bytes.
const MAX_KEY: usize = 128;
/// Letters that are read at once.
const BATCH: usize = 500;

/// Reads the book.
pub(crate) async fn book(repo: &Repo) -> Result<Book, StoreError> {
    let read = repo.get::<Book>(keys::CALLBACKS).await?;
    Ok(read.map(|(book, _)| book).unwrap_or_default())
}

/// Changes the book; the change is in force when this returns.
pub(crate) async fn change<T>(
    repo: &Repo,
    mut decide: impl FnMut(&mut Book) -> Result<T, BookError>,
) -> Result<Result<T, BookError>, StoreError> {
    for _ in 0..ATTEMPTS {
        let (mut book, guard) = match repo.get::<Book>(keys::CALLBACKS).await? {
            Some((book, revision)) => (book, Guard::AtRevision(keys::CALLBACKS.to_owned(), revision)),
            None => (Book::default(), Guard::Absent(keys::CALLBACKS.to_owned())),
        };
        let decided = match decide(&mut book) {
            Ok(decided) => decided,
            Err(error) => return Ok(Err(error)),
        };
        let txn = Txn::new().guard(guard).put_json(keys::CALLBACKS.to_owned(), &book)?;
        match repo.store().commit(txn).await {
            Ok(_) => return Ok(Ok(decided)),
            Err(StoreError::Stale { key }) if key == keys::CALLBACKS => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Stale {
        key: keys::CALLBACKS.to_owned(),
    })
}

/// Why a callback key is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("a callback key has at most {MAX_KEY} bytes, without control characters")]
    Shape,
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Seals a callback key; an empty one is none.
pub(crate) fn seal(vault: &Vault, key: &str) -> Result<Option<Sealed>, KeyError> {
    match key {
        "" => Ok(None),
        key if key.len() > MAX_KEY || key.chars().any(char::is_control) => Err(KeyError::Shape),
        key => Ok(Some(vault.seal(KEY_PURPOSE, &Secret::new(key))?)),
    }
}

/// Opens a callback key; none is empty.
pub(crate) fn open(vault: &Vault, key: Option<&Sealed>) -> Result<String, VaultError> {
    match key {
        None => Ok(String::new()),
        Some(sealed) => Ok(vault.open(KEY_PURPOSE, sealed)?.reveal().to_owned()),
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    Pending,
    Settled(Outcome),
}

/// An event with the letter that it is of.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) letter: Letter,
    pub(crate) event: Event,
}

fn decode(value: &[u8], key: &str) -> Result<Letter, StoreError> {
    serde_json::from_slice(value).map_err(|problem| StoreError::Corrupt {
        key: key.to_owned(),
        problem: problem.to_string(),
    })
}

/// A page of events, those on their way first, each the newest first: those of at most `letters` letters, and the token of the next page.
pub(crate) async fn list(
    repo: &Repo,
    wanted: Wanted,
    letters: usize,
    token: &str,
) -> Result<(Vec<Found>, String), StoreError> {
    let mut found = Vec::new();
    let mut left = letters;
    let prefixes: &[&str] = match wanted {
        Wanted::All => &[keys::OUTBOX, keys::EVENTS],
        // A letter of which some is on its way may hold what was delivered.
        Wanted::Pending => &[keys::OUTBOX],
        Wanted::Settled(_) => &[keys::OUTBOX, keys::EVENTS],
    };
    let begun = prefixes.iter().position(|prefix| token.starts_with(prefix));
    for prefix in prefixes.iter().copied().skip(begun.unwrap_or(0)) {
        let after = token.starts_with(prefix).then(|| token.to_owned());
        if left == 0 {
            // What is there has been read; whether there is more below the next prefix is seen with the next page.
            return Ok((found, format!("{prefix}g")));
        }
        let mut scan = Scan::prefix(prefix).after(after).limit(left);
        scan.reverse = true;
        let scanned = repo.store().scan(scan).await?;
        left -= scanned.entries.len().min(left);
        for entry in &scanned.entries {
            let letter = decode(&entry.value, &entry.key)?;
            let fits = |event: &&Event| match wanted {
                Wanted::All => true,
                Wanted::Pending => event.outcome.is_none(),
                Wanted::Settled(outcome) => event.outcome == Some(outcome),
            };
            for event in letter.events.iter().rev().filter(fits) {
                found.push(Found {
                    letter: letter.clone(),
                    event: event.clone(),
                });
            }
        }
        if scanned.more {
            let last = scanned.entries.last().map(|entry| entry.key.clone());
            return Ok((found, last.unwrap_or_default()));
        }
    }
    Ok((found, String::new()))
}

/// Events of what happened between two moments and `fits`, the newest first. None: there are more than `most` events, whoever's they are.
pub(crate) async fn between(
    repo: &Repo,
    (from, to): (Timestamp, Timestamp),
    most: usize,
    fits: impl Fn(&Letter, &Event) -> bool,
) -> Result<Option<Vec<Found>>, StoreError> {
    let (mut found, mut seen) = (Vec::new(), 0);
    for place in [keys::outbox, keys::event] {
        let first = place(place_at(from));
        let beyond = place(place_at(Timestamp::from_millis(to.as_millis().saturating_add(1))));
        let prefix = first
            .get(..=first.rfind('/').unwrap_or(0))
            .unwrap_or_default()
            .to_owned();
        let mut after = Some(beyond);
        loop {
            let mut scan = Scan::prefix(&prefix).after(after).limit(BATCH);
            scan.reverse = true;
            let scanned = repo.store().scan(scan).await?;
            for entry in &scanned.entries {
                if entry.key < first {
                    break;
                }
                let letter = decode(&entry.value, &entry.key)?;
                seen += letter.events.len();
                let fitting = letter.events.iter().filter(|event| fits(&letter, event));
                found.extend(fitting.map(|event| Found {
                    letter: letter.clone(),
                    event: event.clone(),
                }));
            }
            if seen > most {
                return Ok(None);
            }
            after = scanned.entries.last().map(|entry| entry.key.clone());
            if !scanned.more || after.as_ref().is_none_or(|key| *key < first) {
                break;
            }
        }
    }
    found.sort_by(|a, b| b.event.id.cmp(&a.event.id));
    // One that was settled meanwhile was in both places.
    found.dedup_by(|a, b| a.event.id == b.event.id);
    Ok(Some(found))
}

/// A letter where it lies: its key, and the transaction that wrote it.
struct Lying {
    letter: Letter,
    key: String,
    revision: Revision,
    index: usize,
}

async fn lying(repo: &Repo, id: &str) -> Result<Option<Lying>, StoreError> {
    let Some((place, index)) = id.split_once('-') else {
        return Ok(None);
    };
    let (Ok(place), Ok(index)) = (u64::from_str_radix(place, 16), index.parse::<usize>()) else {
        return Ok(None);
    };
    for key in [keys::outbox(place), keys::event(place)] {
        if let Some((letter, revision)) = repo.get::<Letter>(&key).await?
            && letter.events.get(index).is_some_and(|event| event.id == id)
        {
            return Ok(Some(Lying {
                letter,
                key,
                revision,
                index,
            }));
        }
    }
    Ok(None)
}

impl Lying {
    fn found(self) -> Option<Found> {
        let event = self.letter.events.get(self.index)?.clone();
        Some(Found {
            letter: self.letter,
            event,
        })
    }
}

/// One event; none: it is not kept any more.
pub(crate) async fn get(repo: &Repo, id: &str) -> Result<Option<Found>, StoreError> {
    Ok(lying(repo, id).await?.and_then(Lying::found))
}

/// What comes of a wish to send an event once more.
#[derive(Debug)]
pub(crate) enum Replayed {
    Sent(Box<Found>),
    /// It, or another of the same change, is on its way.
    OnItsWay,
    Unknown,
}

/// Sends an event once more, under its id.
pub(crate) async fn replay(repo: &Repo, id: &str) -> Result<Replayed, StoreError> {
    for _ in 0..ATTEMPTS {
        let Some(mut lying) = lying(repo, id).await? else {
            return Ok(Replayed::Unknown);
        };
        if lying.key.starts_with(keys::OUTBOX) {
            return Ok(Replayed::OnItsWay);
        }
        if let Some(event) = lying.letter.events.get_mut(lying.index) {
            event.attempts = 0;
            event.tried = None;
            event.problem.clear();
            event.outcome = None;
        }
        let txn = Txn::new()
            .guard(Guard::AtRevision(lying.key.clone(), lying.revision))
            .delete(lying.key.clone())
            .put_json(keys::outbox(lying.letter.sequence), &lying.letter)?;
        match repo.store().commit(txn).await {
            Ok(_) => {
                return Ok(lying
                    .found()
                    .map_or(Replayed::Unknown, |found| Replayed::Sent(Box::new(found))));
            }
            Err(StoreError::Stale { key }) if key == lying.key => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Replayed::OnItsWay)
}
