//! The end of a file: its head, composed from the journal's index alone, and what makes head and body an object.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use journal::{IndexReader, Position};
use media::access_unit::{Codec, Track, UnitKind};
use media::{flv, mp4};
use shared::recording::Gap;
use shared::template::Format;

use super::sink::Sink;
use super::{FileRecorder, Pen, configs, undecodable};
use crate::record::body::in_flv_body;
use crate::record::state::OpenFile;
use crate::record::{FinishedFile, RecordError, crc};
use crate::upload::{Complete, Object, Objects, Rest, Store};

impl FileRecorder {
    /// Ends the open file at journal position `to`: head in front, object published, record written. Can be done again after a crash.
    ///
    /// That takes its time. In object storage there is then something to store, and the file is finished when it is stored. In a directory the
    /// decision to end it must be safe first: what a power loss leads back to would look for the body where it no longer is.
    pub(super) fn finish(&mut self, to: u64) -> Result<Option<FinishedFile>, RecordError> {
        let Some(mut open) = self.state.open.clone() else {
            return Ok(None);
        };
        self.cut_at = None;
        let stage = self.stage_name(open.sequence);
        if open.body_len == 0 {
            if let Objects::Local(local) = &self.objects {
                local.unstage(&stage).map_err(RecordError::store(stage.clone()))?;
            }
            self.pen = None;
            self.state.open = None;
            self.state.next_sequence = open.sequence;
            return Ok(None);
        }
        let objects = self.objects.clone();
        if matches!(objects, Objects::Local(_)) {
            self.pen = None;
            open.finishing = Some(to);
            self.state.open = Some(open.clone());
            if !self.keeper.settle(&self.state)? {
                return Ok(None);
            }
        }
        let head = self.head(&open, to)?;
        let gaps = mem::take(&mut self.state.gaps);
        let file = self.finished(&open, &head, gaps);
        let (size, key) = (file.size, file.key.clone());
        if let Objects::Local(local) = &objects {
            if local.size(&key).map_err(RecordError::store(key.clone()))? == Some(size) {
                local.write_head(&key, &head).map_err(RecordError::store(key.clone()))?;
            } else {
                let mut staged = local.stage(&stage).map_err(RecordError::store(stage.clone()))?;
                staged
                    .insert_head(&head, open.body_len)
                    .map_err(RecordError::store(stage.clone()))?;
                staged.publish(local, &key).map_err(RecordError::store(key.clone()))?;
            }
        }
        if let Objects::Remote(_) = objects {
            self.store = Some(self.last_parts(&open, head, &file)?);
            self.ending = Some(file);
            return Ok(None);
        }
        self.setting.note(&file)?;
        self.state.open = None;
        Ok(Some(file))
    }

    /// The open file's record, as it would end now.
    pub(super) fn finished(&self, open: &OpenFile, head: &[u8], gaps: Vec<Gap>) -> FinishedFile {
        let whole = if head.is_empty() {
            open.body_crc
        } else {
            crc::join(crc::of(head), open.body_crc, open.body_len)
        };
        FinishedFile {
            file_id: open.file_id.clone(),
            format: self.setting.format,
            sequence: open.sequence,
            key: self.setting.file_key(open.sequence),
            size: head.len() as u64 + open.body_len,
            checksum: crc::text(whole),
            duration_ms: open.counts.duration_ms(),
            start_ms: open.counts.first_arrival_ms,
            video_units: open.counts.video,
            audio_units: open.counts.audio,
            gaps,
        }
    }

    /// What makes the open file an object, given its head: the last parts, or all of it.
    fn last_parts(&self, open: &OpenFile, head: Vec<u8>, file: &FinishedFile) -> Result<Store, RecordError> {
        let key = self.setting.file_key(open.sequence);
        let Some(Pen {
            sink: Sink::Remote(spool),
            ..
        }) = &self.pen
        else {
            return Err(RecordError::State {
                path: self.setting.notes.clone(),
                reason: format!("{key} is not an open upload"),
            });
        };
        let fail = || RecordError::store(key.clone());
        let Rest { held, tail } = spool.rest(open.body_len, open.parts()).map_err(fail())?;
        let chunks = |parts: Vec<Vec<u8>>| -> Vec<Bytes> {
            let parts = parts.into_iter().filter(|bytes| !bytes.is_empty());
            parts.map(Bytes::from).collect()
        };
        Ok(match &open.upload {
            Some(upload) => Store::Complete(Box::new(Complete {
                upload: upload.id.clone(),
                ids: spool.stored_ids(upload).map_err(fail())?,
                first: chunks(vec![head, held]),
                last: chunks(vec![tail]),
                size: file.size,
                may_be_whole: self.may_be_whole,
                key,
                vouched: Some((file.clone(), Arc::clone(&self.setting.zone))),
            })),
            None => Store::Objects(vec![Object {
                chunks: chunks(vec![head, held, tail]),
                verify: true,
                key,
            }]),
        })
    }

    /// Composes what stands before the body, from the journal's index alone.
    pub(super) fn head(&self, open: &OpenFile, to: u64) -> Result<Vec<u8>, RecordError> {
        let mut seen = open.seen_key_before;
        let mut index = IndexReader::open(&self.setting.journal, Position(open.from))?;
        match self.setting.format {
            Format::Flv => {
                let tags: Vec<(u8, &[u8])> = configs(open)
                    .filter(|(config, _)| config.codec != Codec::Mp3 as u8)
                    .map(|(c, kind)| (tag_type(kind), &*c.body))
                    .collect();
                let mut head = flv::HeadBuilder::new(flv::FileStart {
                    base_ms: open.base_ms,
                    metadata: open.metadata.as_deref(),
                    configs: &tags,
                });
                while let Some(indexed) = index.next()? {
                    if indexed.at.0 >= to {
                        break;
                    }
                    let body = indexed.body.as_deref().unwrap_or(&[]);
                    if !open.is_hole(indexed.at.0)
                        && !undecodable(&mut seen, &indexed.info)
                        && in_flv_body(&indexed.info, body, open.metadata.as_deref())
                    {
                        head.push(&indexed.info);
                    }
                }
                Ok(head.finish())
            }
            Format::Mp4 => {
                let start: Vec<(Codec, Track, &[u8])> = configs(open)
                    .map(|(c, kind)| (c.info(kind).codec, track(kind), c.payload()))
                    .collect();
                let mut head = mp4::HeadBuilder::new(&start, open.counts.first_arrival_ms);
                while let Some(indexed) = index.next()? {
                    if indexed.at.0 >= to {
                        break;
                    }
                    if open.is_hole(indexed.at.0) || undecodable(&mut seen, &indexed.info) {
                        continue;
                    }
                    let header = usize::from(indexed.info.header_len);
                    let config = match indexed.info.kind {
                        UnitKind::VideoConfig | UnitKind::AudioConfig => {
                            indexed.body.as_deref().and_then(|b| b.get(header..))
                        }
                        _ => None,
                    };
                    // The same answers as when the body was written: what was not taken then is not counted now.
                    let _ = head.push(&indexed.info, config);
                }
                head.finish().map_err(|e| RecordError::Head {
                    what: open.file_id.clone(),
                    reason: e.to_string(),
                })
            }
            Format::Aac | Format::Mp3 | Format::Hls => Ok(Vec::new()),
        }
    }
}

fn tag_type(kind: UnitKind) -> u8 {
    if kind == UnitKind::VideoConfig {
        flv::VIDEO
    } else {
        flv::AUDIO
    }
}

fn track(kind: UnitKind) -> Track {
    if kind == UnitKind::VideoConfig {
        Track::Video
    } else {
        Track::Audio
    }
}
