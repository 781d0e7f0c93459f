//! [`Spool`]: what of a growing file has to wait on the local disk until object storage has it.
//!
//! Three files beside the recorder's state: `NAME.held` has the body's first bytes, which go up last, together with the head;
//! `NAME.part-N` what is rendered of a part that is not whole yet; `NAME.ids` one line for each part that is stored. Their lengths are
//! in the recorder's state: what lies behind is of a step that a crash undid.
//!
//! A file is removed only when a state that does without it is safe against power loss.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::plan::{HELD, Plan};

/// What a growing file's upload has come to: part of the recorder's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upload {
    /// What the service calls it.
    pub(crate) id: String,
    /// Body parts that are stored.
    pub(crate) parts: u32,
    /// Bytes of their ids' lines.
    pub(crate) ids_len: u64,
    /// It is in the second place of objects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) second: bool,
}

/// A growing file's local part.
#[derive(Debug)]
pub(crate) struct Spool {
    base: PathBuf,
    plan: Plan,
}

/// A part that is whole.
#[derive(Debug)]
pub(crate) struct FullPart {
    /// Which, among the body's, from 0.
    pub(crate) index: u32,
    pub(crate) chunks: Vec<Bytes>,
}

/// What is left to store when the body is whole.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The body's first bytes.
    pub(crate) held: Vec<u8>,
    /// The body's last bytes, if they are not among the first.
    pub(crate) tail: Vec<u8>,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn short(path: &Path, there: u64, noted: u64) -> io::Error {
    let text = format!("{} is {there} bytes, its recorder noted {noted}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Cuts a file to what the state tells of it.
fn cut(path: &Path, len: u64) -> io::Result<()> {
    if len == 0 {
        return remove(path);
    }
    let file = open(path)?;
    let there = file.metadata()?.len();
    if there < len {
        return Err(short(path, there, len));
    }
    file.set_len(len)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn read_exactly(path: &Path, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    if len > 0 {
        File::open(path)?.take(len).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 == len {
        Ok(bytes)
    } else {
        Err(short(path, bytes.len() as u64, len))
    }
}

impl Spool {
    /// The local part of the file `name`, in the directory of the recorder's state.
    pub(crate) fn new(notes: &Path, name: &str, plan: Plan) -> Self {
        Self {
            base: notes.join(name),
            plan,
        }
    }

    fn held(&self) -> PathBuf {
        self.base.with_extension("held")
    }

    fn part(&self, index: u32) -> PathBuf {
        self.base.with_extension(format!("part-{index:05}"))
    }

    fn ids(&self) -> PathBuf {
        self.base.with_extension("ids")
    }

    /// Goes back to a body of `body_len` bytes, of which the upload has what it says.
    pub(crate) fn resume(&self, body_len: u64, upload: Option<&Upload>) -> io::Result<()> {
        let (parts, ids_len) = upload.map_or((0, 0), |u| (u.parts, u.ids_len));
        cut(&self.held(), body_len.min(HELD))?;
        cut(&self.part(parts), body_len.saturating_sub(self.plan.part_start(parts)))?;
        cut(&self.ids(), ids_len)
    }

    /// Bytes after which a body of `body_len` bytes, `parts` of its parts stored, has something to store or to write down.
    pub(crate) fn room(&self, body_len: u64, parts: u32) -> u64 {
        let end = if body_len < HELD {
            HELD
        } else {
            self.plan.part_end(parts)
        };
        end.saturating_sub(body_len)
    }

    /// Takes the bytes that follow upon the body's `body_len`: writes down what cannot be stored yet, gives back a part that is whole.
    pub(crate) fn append(&self, body_len: u64, parts: u32, mut bytes: Vec<u8>) -> io::Result<Option<FullPart>> {
        let mut at = body_len;
        if at < HELD {
            let rest = bytes.split_off(usize::try_from(HELD - at).unwrap_or(usize::MAX).min(bytes.len()));
            open(&self.held())?.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
            bytes = rest;
        }
        let waiting = at.saturating_sub(self.plan.part_start(parts));
        let len = self.plan.part_len(parts);
        if waiting + (bytes.len() as u64) < len {
            if !bytes.is_empty() {
                open(&self.part(parts))?.write_all_at(&bytes, waiting)?;
            }
            return Ok(None);
        }
        let mut first = read_exactly(&self.part(parts), waiting)?;
        let mut next = first.split_off(usize::try_from(len).unwrap_or(usize::MAX).min(first.len()));
        let wanted = usize::try_from(len).unwrap_or(usize::MAX) - first.len();
        next.extend_from_slice(bytes.get(wanted..).unwrap_or(&[]));
        bytes.truncate(wanted);
        // A file that a crash left may be longer.
        fs::write(self.part(parts + 1), &next)?;
        let chunks = [first, bytes].into_iter().filter(|b| !b.is_empty()).map(Bytes::from);
        Ok(Some(FullPart {
            index: parts,
            chunks: chunks.collect(),
        }))
    }

    /// Notes that the next part is stored, under this id.
    pub(crate) fn stored(&self, upload: &mut Upload, id: &str) -> io::Result<()> {
        let line = serde_json::to_string(id)? + "\n";
        let file = open(&self.ids())?;
        file.write_all_at(line.as_bytes(), upload.ids_len)?;
        upload.ids_len += line.len() as u64;
        upload.parts += 1;
        file.set_len(upload.ids_len)
    }

    /// Ids of the stored parts, in order.
    pub(crate) fn stored_ids(&self, upload: &Upload) -> io::Result<Vec<String>> {
        let bytes = read_exactly(&self.ids(), upload.ids_len)?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }

    /// What of a body of `body_len` bytes is not stored yet.
    pub(crate) fn rest(&self, body_len: u64, parts: u32) -> io::Result<Rest> {
        let tail = body_len.saturating_sub(self.plan.part_start(parts));
        Ok(Rest {
            held: read_exactly(&self.held(), body_len.min(HELD))?,
            tail: read_exactly(&self.part(parts), tail)?,
        })
    }

    /// Removes the beginning of part `index`: it is stored.
    pub(crate) fn forget_part(&self, index: u32) -> io::Result<()> {
        remove(&self.part(index))
    }

    /// Removes all there is: the file is an object.
    pub(crate) fn forget(&self, parts: u32) -> io::Result<()> {
        for path in [self.held(), self.ids(), self.part(parts)] {
            remove(&path)?;
        }
        Ok(())
    }
}

/// Writes an object's bytes that are too many to keep in memory.
pub(crate) fn spill(path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let file = open(path)?;
    if at == 0 {
        file.set_len(0)?;
    }
    file.write_all_at(bytes, at)
}

/// Writes a small file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("tmp");
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    fs::rename(temp, path)
}
