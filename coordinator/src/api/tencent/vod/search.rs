//! `SearchMedia`: reads the library by the time at which files entered it, until the page is full and the hits are counted.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value, json};
use shared::{
    ids::FileId,
    recording::MediaFile,
    store::{Scan, keys},
};

use super::{
    find,
    query::{Blocks, MOST, Query},
    written,
};
use crate::{
    api::tencent::{
        actions::{Answer, Context},
        error::ApiError,
        params::Fields,
    },
    media::note::Note,
};

/// Most files that one search looks at.
const LOOK_AT: usize = 20_000;
/// Files that are read at once.
const AT_ONCE: usize = 32;
/// Entries of the index that are read at once.
const BATCH: usize = 500;

pub(in crate::api::tencent) async fn search(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let query = Query::read(&mut fields)?;
    let blocks = Blocks::read(&mut fields)?;
    fields.finish()?;
    let mut hits = Hits::default();
    match &query.files {
        Some(files) => {
            read(cx, &query, files.clone(), &mut hits).await?;
        }
        None => scan(cx, &query, &mut hits).await?,
    }
    let page: Vec<Value> = hits
        .page
        .iter()
        .map(|(file, note)| written(cx, file, note, blocks))
        .collect();
    Ok(Map::from_iter([
        ("TotalCount".to_owned(), json!(hits.total)),
        ("MediaInfoSet".to_owned(), page.into()),
    ]))
}

/// What was found: how many, and those of the page.
#[derive(Default)]
struct Hits {
    total: usize,
    page: Vec<(MediaFile, Note)>,
}

impl Hits {
    /// True if no more are counted.
    fn full(&self) -> bool {
        i64::try_from(self.total).unwrap_or(i64::MAX) >= MOST
    }
}

/// Looks at files, in their order, several at once.
async fn read(cx: &Context<'_>, query: &Query, files: Vec<FileId>, hits: &mut Hits) -> Result<(), ApiError> {
    let mut found = stream::iter(files).map(|id| find(cx, id)).buffered(AT_ONCE);
    while let Some(found) = found.try_next().await? {
        let Some((file, note)) = found.filter(|(file, note)| query.fits(&cx.caller, file, note)) else {
            continue;
        };
        if hits.full() {
            return Ok(());
        }
        if (query.offset..query.offset + query.limit).contains(&hits.total) {
            hits.page.push((file, note));
        }
        hits.total += 1;
    }
    Ok(())
}

async fn scan(cx: &Context<'_>, query: &Query, hits: &mut Hits) -> Result<(), ApiError> {
    let bound = |at: shared::time::Timestamp| keys::file_time(at);
    // Keys of a moment are longer than the moment's own: they lie beyond it when reading on, and before it when reading back.
    let (mut after, end) = match query.oldest_first {
        true => (query.after.map(bound), query.before.map(bound)),
        false => (query.before.map(bound), query.after.map(bound)),
    };
    let mut looked_at = 0;
    loop {
        let mut scan = Scan::prefix(keys::FILES_BY_TIME).after(after.clone()).limit(BATCH);
        scan.reverse = !query.oldest_first;
        let scanned = cx.tools.repo.store().scan(scan).await?;
        let within = |key: &str| match (&end, query.oldest_first) {
            (None, _) => true,
            (Some(end), true) => key < end.as_str(),
            (Some(end), false) => key >= end.as_str(),
        };
        let files: Vec<FileId> = scanned
            .entries
            .iter()
            .filter(|entry| within(&entry.key))
            .filter_map(|entry| keys::last_part(&entry.key).parse().ok())
            .collect();
        let beyond = files.len() < scanned.entries.len();
        looked_at += files.len();
        read(cx, query, files, hits).await?;
        after = scanned.entries.last().map(|entry| entry.key.clone());
        if hits.full() || beyond || !scanned.more {
            return Ok(());
        }
        if looked_at >= LOOK_AT {
            return Err(ApiError::new(
                "LimitExceeded",
                format!("the search looked at {looked_at} files without an end: narrow it with CreateTime"),
            ));
        }
    }
}
