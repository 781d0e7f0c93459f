//! `aircheck file …`

use proto::v1::files_client::FilesClient;
use proto::v1::{
    CopyJob, DeleteFileRequest, GetFileRequest, ListCopiesRequest, ListFilesRequest, ListRemovalsRequest,
    LockFileRequest, MediaFile, Removal, UnlockFileRequest,
};
use serde_json::{Value, json};
use shared::template::Format;

use super::{
    Done, PAGE, bytes, connect, format_name, gaps_json, given, instant, length, print, said, stream_json, stream_name,
    table, when,
};
use crate::cli::{FileCommand, Of};

pub(crate) async fn run(command: FileCommand) -> Done {
    match command {
        FileCommand::List {
            of,
            recording,
            format,
            client,
        } => {
            let format = match format {
                None => None,
                Some(name) => Some(
                    Format::ALL
                        .into_iter()
                        .find(|f| f.as_str() == name.to_ascii_lowercase())
                        .ok_or_else(|| format!("--format {name:?} is none of flv, hls, mp4, aac, mp3"))?,
                ),
            };
            let all = list(connect(&client)?, &of, recording.as_ref(), format).await?;
            let document = json!({ "files": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || listing(&all))
        }
        FileCommand::Get { file, client } => {
            let answer = FilesClient::new(connect(&client)?)
                .get_file(GetFileRequest { file_id: file })
                .await
                .map_err(said)?;
            let found = answer.into_inner().file.ok_or("the coordinator sent no file")?;
            print(&client, &document(&found), || {
                let mut text = listing(std::slice::from_ref(&found));
                text += &format!("\nobject key  {}\nchecksum    {}\n", found.object_key, found.checksum);
                text += &format!("units       {} video, {} audio\n", found.video_units, found.audio_units);
                text += &format!("kept        {}\n", kept(&found));
                text += &format!("copied      {}\n", when(found.copied_ms));
                for gap in &found.gaps {
                    text += &format!(
                        "gap         {} units, {} to {} ms: {}\n",
                        gap.units, gap.from_ms, gap.to_ms, gap.reason
                    );
                }
                text
            })
        }
        FileCommand::Lock { file, client } => {
            let mut service = FilesClient::new(connect(&client)?);
            let answer = service.lock_file(LockFileRequest { file_id: file }).await;
            shown(&client, answer.map_err(said)?.into_inner().file)
        }
        FileCommand::Unlock { file, client } => {
            let mut service = FilesClient::new(connect(&client)?);
            let answer = service.unlock_file(UnlockFileRequest { file_id: file }).await;
            shown(&client, answer.map_err(said)?.into_inner().file)
        }
        FileCommand::Delete { file, client } => {
            let mut service = FilesClient::new(connect(&client)?);
            let request = DeleteFileRequest { file_id: file.clone() };
            service.delete_file(request).await.map_err(said)?;
            print(&client, &json!({ "deleted": file }), || format!("deleted {file}\n"))
        }
        FileCommand::Copies { client } => {
            let mut service = FilesClient::new(connect(&client)?);
            let answer = service.list_copies(ListCopiesRequest {}).await.map_err(said)?;
            let all = answer.into_inner().copies;
            let document = json!({ "copies": all.iter().map(copy_document).collect::<Vec<_>>() });
            print(&client, &document, || copies_listing(&all))
        }
        FileCommand::Removals { client } => {
            let mut service = FilesClient::new(connect(&client)?);
            let answer = service.list_removals(ListRemovalsRequest {}).await.map_err(said)?;
            let all = answer.into_inner().removals;
            let document = json!({ "removals": all.iter().map(removal_document).collect::<Vec<_>>() });
            print(&client, &document, || removals_listing(&all))
        }
    }
}

/// One file.
fn shown(client: &crate::cli::Client, found: Option<MediaFile>) -> Done {
    let found = found.ok_or("the coordinator sent no file")?;
    print(client, &document(&found), || {
        format!("{}\nkept  {}\n", listing(std::slice::from_ref(&found)), kept(&found))
    })
}

/// How long a file stays.
fn kept(file: &MediaFile) -> String {
    let until = match file.expires_ms {
        0 => "for ever".to_owned(),
        at => format!("until {}", when(at)),
    };
    match file.locked {
        true => format!("locked, else {until}"),
        false => until,
    }
}

/// Copies that are to be made as a table.
fn copies_listing(copies: &[CopyJob]) -> String {
    let rows: Vec<Vec<String>> = copies
        .iter()
        .map(|copy| {
            let what = match copy.file_id.as_str() {
                "" => "recording.json".to_owned(),
                file => file.to_owned(),
            };
            vec![
                what,
                stream_name(copy.stream.as_ref()),
                when(copy.since_ms),
                copy.worker_id.clone(),
                copy.failures.to_string(),
                when(copy.retry_ms),
                copy.problem.clone(),
            ]
        })
        .collect();
    table(
        &["file", "stream", "since", "worker", "failures", "next try", "problem"],
        &rows,
    )
}

/// One copy that is to be made, for programs.
fn copy_document(copy: &CopyJob) -> Value {
    json!({
        "file_id": copy.file_id,
        "recording_id": copy.recording_id,
        "stream": stream_json(copy.stream.as_ref()),
        "since": instant(copy.since_ms),
        "worker_id": copy.worker_id,
        "failures": copy.failures,
        "retry": instant(copy.retry_ms),
        "problem": copy.problem,
    })
}

/// Removals as a table.
fn removals_listing(removals: &[Removal]) -> String {
    let rows: Vec<Vec<String>> = removals
        .iter()
        .map(|r| {
            let file = r.file.clone().unwrap_or_default();
            vec![
                file.file_id,
                r.cause.clone(),
                r.place.clone(),
                when(r.begun_ms),
                r.failures.to_string(),
                when(r.retry_ms),
                r.problem.clone(),
            ]
        })
        .collect();
    table(
        &["id", "cause", "place", "begun", "failures", "next try", "problem"],
        &rows,
    )
}

/// One removal, for programs.
fn removal_document(removal: &Removal) -> Value {
    json!({
        "file": removal.file.as_ref().map(document),
        "begun": instant(removal.begun_ms),
        "cause": removal.cause,
        "failures": removal.failures,
        "retry": instant(removal.retry_ms),
        "problem": removal.problem,
        "place": removal.place,
    })
}

/// Reads every page.
pub(crate) async fn list(
    channel: super::Way,
    of: &Of,
    recording: Option<&String>,
    format: Option<Format>,
) -> Result<Vec<MediaFile>, Box<dyn std::error::Error + Send + Sync>> {
    let mut service = FilesClient::new(channel);
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListFilesRequest {
            page_size: PAGE,
            page_token,
            recording_id: given(recording),
            domain: given(of.domain.as_ref()),
            app: given(of.app.as_ref()),
            stream: given(of.stream.as_ref()),
            format: format.map_or(0, |f| proto::v1::Format::from(f).into()),
        };
        let page = service.list_files(request).await.map_err(said)?.into_inner();
        all.extend(page.files);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// Files as a table.
pub(crate) fn listing(files: &[MediaFile]) -> String {
    let rows: Vec<Vec<String>> = files
        .iter()
        .map(|f| {
            vec![
                stream_name(f.stream.as_ref()),
                format_name(f.format),
                f.name.clone(),
                when(f.start_ms),
                length(f.duration_ms),
                bytes(f.size),
                if f.copied_ms == 0 { "-" } else { "yes" }.to_owned(),
                f.file_id.clone(),
            ]
        })
        .collect();
    table(
        &["stream", "format", "name", "start", "length", "size", "copied", "id"],
        &rows,
    )
}

/// One file, for programs.
pub(crate) fn document(file: &MediaFile) -> Value {
    json!({
        "file_id": file.file_id,
        "recording_id": file.recording_id,
        "stream": stream_json(file.stream.as_ref()),
        "format": format_name(file.format),
        "sequence": file.sequence,
        "name": file.name,
        "object_key": file.object_key,
        "size": file.size,
        "duration_ms": file.duration_ms,
        "start": instant(file.start_ms),
        "end": instant(file.end_ms),
        "checksum": file.checksum,
        "video_units": file.video_units,
        "audio_units": file.audio_units,
        "gaps": gaps_json(&file.gaps),
        "epoch": file.epoch,
        "committed": instant(file.committed_ms),
        "expires": instant(file.expires_ms),
        "locked": file.locked,
        "copied": instant(file.copied_ms),
        "trace_id": file.trace_id,
    })
}
