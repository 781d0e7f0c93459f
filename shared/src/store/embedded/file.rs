//! The database file: its tables, how it is opened, how it is read.

use std::time::Duration;

use bytes::Bytes;
use redb::{Database, MultimapTableDefinition, ReadableDatabase as _, ReadableTable, TableDefinition};

use super::super::{
    Entry, LeaseId, Revision, Scan, Scanned, StoreError,
    kv::{is_empty_range, scan_bounds},
};

/// Version of the file's layout.
pub(super) const LAYOUT: u64 = 1;
/// Key to: revision (8 bytes, little endian), lease or 0 (8 bytes, little endian), value.
pub(super) const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
/// `layout`, `revision`, `last_lease`.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Lease to its time to live, milliseconds. Leases get their whole time anew when the store opens.
pub(super) const LEASES: TableDefinition<'static, u64, u64> = TableDefinition::new("leases");
/// Lease to its keys.
pub(super) const LEASE_KEYS: MultimapTableDefinition<'static, u64, &str> = MultimapTableDefinition::new("lease_keys");

pub(super) fn db_error(error: impl Into<redb::Error>) -> StoreError {
    StoreError::unavailable(error.into())
}

/// What an opened file says.
pub(super) struct Opened {
    pub(super) layout: u64,
    pub(super) revision: Revision,
    pub(super) last_lease: u64,
    pub(super) leases: Vec<(LeaseId, Duration)>,
}

/// Makes the tables and reads what the writer starts from.
pub(super) fn prepare(db: &Database) -> Result<Opened, redb::Error> {
    let txn = db.begin_write()?;
    let opened = {
        let mut meta = txn.open_table(META)?;
        let mut number = |name: &str, default: u64| -> Result<u64, redb::Error> {
            if let Some(found) = meta.get(name)? {
                return Ok(found.value());
            }
            meta.insert(name, default)?;
            Ok(default)
        };
        let (layout, revision, last_lease) = (
            number("layout", LAYOUT)?,
            number("revision", 0)?,
            number("last_lease", 0)?,
        );
        txn.open_table(ENTRIES)?;
        txn.open_multimap_table(LEASE_KEYS)?;
        let leases = txn.open_table(LEASES)?;
        let mut found = Vec::new();
        for lease in leases.iter()? {
            let (id, ttl_ms) = lease?;
            found.push((LeaseId(id.value()), Duration::from_millis(ttl_ms.value())));
        }
        Opened {
            layout,
            revision: Revision(revision),
            last_lease,
            leases: found,
        }
    };
    txn.commit()?;
    Ok(opened)
}

fn decode(key: &str, stored: &[u8]) -> Result<Entry, StoreError> {
    let corrupt = || StoreError::Corrupt {
        key: key.to_owned(),
        problem: "shorter than its header".to_owned(),
    };
    let (revision, rest) = stored.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let (lease, value) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let lease = u64::from_le_bytes(*lease);
    Ok(Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        revision: Revision(u64::from_le_bytes(*revision)),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + entry.value.len());
    out.extend_from_slice(&entry.revision.0.to_le_bytes());
    out.extend_from_slice(&entry.lease.map_or(0, |lease| lease.0).to_le_bytes());
    out.extend_from_slice(&entry.value);
    out
}

pub(super) fn read_entry(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<Entry>, StoreError> {
    match table.get(key).map_err(db_error)? {
        Some(stored) => decode(key, stored.value()).map(Some),
        None => Ok(None),
    }
}

pub(super) fn read_scan(db: &Database, scan: &Scan) -> Result<Scanned, StoreError> {
    let txn = db.begin_read().map_err(db_error)?;
    let entries_table = txn.open_table(ENTRIES).map_err(db_error)?;
    let meta = txn.open_table(META).map_err(db_error)?;
    let revision = Revision(meta.get("revision").map_err(db_error)?.map_or(0, |found| found.value()));
    let bounds = scan_bounds(scan);
    let mut entries = Vec::new();
    let mut more = false;
    if !is_empty_range(&bounds) {
        let bounds = (
            bounds.0.as_ref().map(String::as_str),
            bounds.1.as_ref().map(String::as_str),
        );
        let mut range = entries_table.range::<&str>(bounds).map_err(db_error)?;
        while let Some(found) = if scan.reverse { range.next_back() } else { range.next() } {
            let (key, stored) = found.map_err(db_error)?;
            if entries.len() == scan.limit {
                more = true;
                break;
            }
            entries.push(decode(key.value(), stored.value())?);
        }
    }
    Ok(Scanned {
        entries,
        revision,
        more,
    })
}

/// Reads one key.
pub(super) fn read_one(db: &Database, key: &str) -> Result<Option<Entry>, StoreError> {
    let txn = db.begin_read().map_err(db_error)?;
    read_entry(&txn.open_table(ENTRIES).map_err(db_error)?, key)
}
