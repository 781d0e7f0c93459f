//! `/media/…`: finished files over HTTP, for who holds a link. The link is the credential.

use std::{path::Path, sync::Arc};

use actix_files::NamedFile;
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentDisposition, DispositionParam, DispositionType, ExtendedValue},
    web,
};
use shared::{ids::FileId, recording::MediaFile, store::keys};
use tracing::warn;

use crate::{
    actors::coordinator::Tools,
    media::{
        link::Links,
        note::Note,
        place::{Place, PlaceError},
    },
};

/// What the door works with.
pub(crate) struct Media {
    tools: Tools,
    links: Links,
    place: Place,
}

impl Media {
    pub(crate) fn new(tools: &Tools) -> Arc<Self> {
        Arc::new(Media {
            links: Links::new(tools.vault.media_key()),
            place: Place::new(tools.config.objects.url.clone()),
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
        Some("m3u8") => "application/vnd.apple.mpegurl",
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
    let (link, file, name) = path.into_inner();
    let refused = |mut answer: actix_web::HttpResponseBuilder, text: &'static str| {
        answer.content_type("text/plain; charset=utf-8").body(text)
    };
    let Some(id) = file
        .parse::<FileId>()
        .ok()
        .filter(|id| media.links.covers(&link, *id, media.tools.clock.now()))
    else {
        return refused(
            HttpResponse::Forbidden(),
            "this link is not valid, or no longer: ask for a new one\n",
        );
    };
    match open(&media, id, &name).await {
        Ok((file, note, open)) => {
            let save = request.query_string().split('&').any(|word| word == "download");
            let kind = content_type(open.path());
            let is_whole = kind == "application/vnd.apple.mpegurl" || file.format != shared::template::Format::Hls;
            let shown = if is_whole { note.name(&file) } else { &name };
            let mut answer = open
                .use_etag(true)
                .use_last_modified(true)
                .prefer_utf8(false)
                .set_content_type(kind.parse().unwrap_or(mime()))
                .set_content_disposition(disposition(shown, save))
                .into_response(&request);
            // Who holds the link may play it from any page.
            let headers = answer.headers_mut();
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                header::HeaderValue::from_static("*"),
            );
            headers.insert(
                header::X_CONTENT_TYPE_OPTIONS,
                header::HeaderValue::from_static("nosniff"),
            );
            answer
        }
        Err(PlaceError::NotFound) => refused(HttpResponse::NotFound(), "there is no such file\n"),
        Err(PlaceError::Unsupported(_)) => refused(
            HttpResponse::NotImplemented(),
            "media of this store is not served here\n",
        ),
        Err(PlaceError::Io(error)) => {
            warn!(file = %id, error = &error as &dyn std::error::Error, "media cannot be served");
            refused(HttpResponse::InternalServerError(), "the file cannot be read now\n")
        }
    }
}

fn mime() -> actix_web::mime::Mime {
    actix_web::mime::APPLICATION_OCTET_STREAM
}

async fn open(media: &Media, id: FileId, tail: &str) -> Result<(MediaFile, Note, NamedFile), PlaceError> {
    let other = |error: shared::store::StoreError| PlaceError::Io(std::io::Error::other(error));
    let file = media
        .tools
        .repo
        .file(id)
        .await
        .map_err(other)?
        .ok_or(PlaceError::NotFound)?;
    let note = media
        .tools
        .repo
        .get::<Note>(&keys::media_note(id))
        .await
        .map_err(other)?;
    let (place, of, tail) = (media.place.clone(), file.clone(), tail.to_owned());
    let opened = web::block(move || {
        let path = place.find(&of, &tail)?;
        NamedFile::open(path).map_err(PlaceError::Io)
    });
    let opened = opened
        .await
        .map_err(|error| PlaceError::Io(std::io::Error::other(error)))??;
    Ok((file, note.map(|(note, _)| note).unwrap_or_default(), opened))
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
