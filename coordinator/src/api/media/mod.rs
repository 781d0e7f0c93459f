//! `/media/…`: finished files over HTTP, and the HLS of recordings that run, for who holds a link. The link is the credential.

mod holder;
mod recording;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use actix_files::NamedFile;
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentDisposition, DispositionParam, DispositionType, ExtendedValue},
    web,
};
use shared::{
    ids::{FileId, RecordingId},
    objects::{Archive, Bucket, LinkTo, ObjectError, Places},
    recording::MediaFile,
    store::keys,
};
use tracing::warn;

use crate::{
    actors::coordinator::Tools,
    media::{
        link::Links,
        note::Note,
        place::{Place, PlaceError, key_within},
    },
};

/// The type of a playlist.
const PLAYLIST: &str = "application/vnd.apple.mpegurl";

/// What the door works with.
pub(crate) struct Media {
    tools: Tools,
    links: Links,
    places: Places<Place>,
    second_place: Place,
    doubts: Places<holder::Doubt>,
    second_doubt: holder::Doubt,
    is_backup: bool,
}

impl Media {
    pub(crate) fn new(tools: &Tools) -> Arc<Self> {
        let objects = &tools.config.objects;
        let urls = |name: &String| Some((name.clone(), objects.place(name)?.url));
        let urls: BTreeMap<_, _> = objects.places.keys().filter_map(urls).collect();
        let doubts = urls.keys().map(|name| (name.clone(), holder::Doubt::default()));
        let doubts = Places::new(holder::Doubt::default(), doubts.collect());
        let named = urls.into_iter().map(|(name, url)| (name, Place::new(url)));
        Arc::new(Media {
            links: Links::new(tools.vault.media_keys()),
            places: Places::new(Place::new(objects.url.clone()), named.collect()),
            doubts,
            second_place: Place::new(tools.config.objects.copy.url.clone()),
            second_doubt: holder::Doubt::default(),
            is_backup: tools.config.objects.backup().is_some(),
            tools: tools.clone(),
        })
    }
}

/// Adds the door at `/media/`.
pub(crate) fn configure(config: &mut web::ServiceConfig, media: Arc<Media>) {
    config.app_data(web::Data::from(media)).service(
        web::resource("/media/{link}/{file}/{name:.*}")
            .route(web::get().to(serve))
            .route(web::head().to(serve)),
    );
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("flv") => "video/x-flv",
        Some("mp4" | "m4s") => "video/mp4",
        Some("ts") => "video/mp2t",
        Some("m3u8") => PLAYLIST,
        Some("aac") => "audio/aac",
        Some("mp3") => "audio/mpeg",
        _ => "application/octet-stream",
    }
}

/// The name for saving it: plain for old clients, and as it is for the others.
fn disposition(name: &str, save: bool) -> ContentDisposition {
    let plain = |c: char| match c {
        ' '..='~' if !"\"\\/".contains(c) => c,
        _ => '_',
    };
    ContentDisposition {
        disposition: if save {
            DispositionType::Attachment
        } else {
            DispositionType::Inline
        },
        parameters: vec![
            DispositionParam::Filename(name.chars().map(plain).collect()),
            DispositionParam::FilenameExt(ExtendedValue {
                charset: header::Charset::Ext("UTF-8".to_owned()),
                language_tag: None,
                value: name.as_bytes().to_vec(),
            }),
        ],
    }
}

async fn serve(
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
    media: web::Data<Media>,
) -> HttpResponse {
    let (link, subject, tail) = path.into_inner();
    let refused = |mut answer: actix_web::HttpResponseBuilder, text: &'static str| {
        answer.content_type("text/plain; charset=utf-8").body(text)
    };
    let named = Subject::read(&subject).filter(|_| media.links.covers(&link, &subject, media.tools.clock.now()));
    let answered = match named {
        None => {
            return refused(
                HttpResponse::Forbidden(),
                "this link is not valid, or no longer: ask for a new one\n",
            );
        }
        Some(Subject::Recording(id)) => recording::serve(&media, id, (&link, &tail), &request).await,
        Some(Subject::File(id)) => of_file(&media, id, (&link, &tail), &request).await,
    };
    match answered {
        Ok(mut answer) => {
            open_to_every_page(&mut answer);
            answer
        }
        Err(PlaceError::NotFound) => refused(HttpResponse::NotFound(), "there is no such file\n"),
        Err(PlaceError::Io(error)) => {
            warn!(
                subject,
                error = &error as &dyn std::error::Error,
                "media cannot be served"
            );
            refused(HttpResponse::BadGateway(), "storage does not give the file now\n")
        }
    }
}

/// What a link leads to.
enum Subject {
    File(FileId),
    Recording(RecordingId),
}

impl Subject {
    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix("r-") {
            Some(id) => id.parse().ok().map(Subject::Recording),
            None => text.parse().ok().map(Subject::File),
        }
    }
}

/// A file of the library, or a segment of one.
async fn of_file(
    media: &Media,
    id: FileId,
    (link, tail): (&str, &str),
    request: &HttpRequest,
) -> Result<HttpResponse, PlaceError> {
    let (file, note) = known(media, id).await?;
    let key = key_within(&file, tail).ok_or(PlaceError::NotFound)?;
    let kind = content_type(Path::new(&key));
    let save = request.query_string().split('&').any(|word| word == "download");
    let is_whole = kind == PLAYLIST || file.format != shared::template::Format::Hls;
    let disposition = disposition(if is_whole { note.name(&file) } else { tail }, save);
    let (archive, place) = media.holder(&key).await.map_err(gone)?;
    match archive {
        // A playlist is passed through, so that what it names is asked for here.
        Some(Archive::Bucket(bucket)) if kind == PLAYLIST => Ok(HttpResponse::Ok()
            .content_type(kind)
            .insert_header(disposition)
            .body(bucket.get(&key).await.map_err(gone)?)),
        Some(Archive::Bucket(bucket)) => redirect(media, bucket, &key, (link, kind, &disposition), request).await,
        Some(Archive::Folder(_)) | None => Ok(from_disk(place, key)
            .await?
            .set_content_type(kind.parse().unwrap_or(mime()))
            .set_content_disposition(disposition)
            .into_response(request)),
    }
}

/// For how long a redirect to the bucket is good, if its link is good for so long.
const REDIRECT_FOR: Duration = Duration::from_secs(12 * 3_600);

fn gone(error: ObjectError) -> PlaceError {
    match error {
        ObjectError::Missing(_) => PlaceError::NotFound,
        other => PlaceError::Io(std::io::Error::other(other)),
    }
}

/// Sends whoever asks to the bucket itself, which lets this one object be read.
async fn redirect(
    media: &Media,
    bucket: &Bucket,
    key: &str,
    (link, kind, disposition): (&str, &'static str, &ContentDisposition),
    request: &HttpRequest,
) -> Result<HttpResponse, PlaceError> {
    let left = expires(link).map_or(0, |at| at - media.tools.clock.now().as_millis().div_euclid(1_000));
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1));
    let to = LinkTo {
        head: *request.method() == actix_web::http::Method::HEAD,
        content_type: kind,
        disposition: &disposition.to_string(),
        good_for: left.min(REDIRECT_FOR),
    };
    let url = bucket.link(key, to).await.map_err(gone)?;
    Ok(HttpResponse::Found()
        .insert_header((header::LOCATION, url))
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        .finish())
}

/// An object on this machine.
async fn from_disk(place: &Place, key: String) -> Result<NamedFile, PlaceError> {
    let place = place.clone();
    let opened = web::block(move || NamedFile::open(place.find(&key)?).map_err(PlaceError::Io));
    let opened = opened
        .await
        .map_err(|error| PlaceError::Io(std::io::Error::other(error)))??;
    Ok(opened.use_etag(true).use_last_modified(true).prefer_utf8(false))
}

/// Until when a link is good, seconds since the Unix epoch.
fn expires(link: &str) -> Option<i64> {
    link.split_once('-')?.0.parse().ok()
}

/// Who holds the link may play it from any page.
fn open_to_every_page(answer: &mut HttpResponse) {
    let headers = answer.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::HeaderValue::from_static("*"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
}

fn mime() -> actix_web::mime::Mime {
    actix_web::mime::APPLICATION_OCTET_STREAM
}

/// A file of the library, and what people say of it.
async fn known(media: &Media, id: FileId) -> Result<(MediaFile, Note), PlaceError> {
    let other = |error: shared::store::StoreError| PlaceError::Io(std::io::Error::other(error));
    let repo = &media.tools.repo;
    let file = repo.file(id).await.map_err(other)?.ok_or(PlaceError::NotFound)?;
    let note = repo.get::<Note>(&keys::media_note(id)).await.map_err(other)?;
    Ok((file, note.map(|(note, _)| note).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_header_whatever_they_hold() {
        let text = disposition("日 \"x\"\r\n.flv", true).to_string();
        assert!(text.starts_with("attachment; filename=\"_ _x___.flv\""), "{text}");
        assert!(
            text.contains("filename*=UTF-8''%E6%97%A5%20%22x%22%0D%0A.flv"),
            "{text}"
        );
    }
}
