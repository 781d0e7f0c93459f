//! `/api/v1/compositions`: new files of pieces of stored ones.

use actix_web::{
    get, post,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, compositions_server::Compositions as _, files_server::Files as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Answer, Paging, Refusals, Request, Rest,
    caller::Caller,
    documents::{Stream, instant, word},
    there, unseen,
};

/// A part of a stored file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    /// UUID of the file: MP4, FLV, HLS, AAC or MP3.
    file_id: String,
    /// From the key picture at or before this time on, milliseconds from the file's beginning.
    #[serde(default)]
    from_ms: u64,
    /// To the key picture at or behind so much later, milliseconds; null: to the end.
    for_ms: Option<u64>,
}

/// A new file that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewComposition {
    /// 1 to 500, in order.
    pieces: Vec<Piece>,
    /// Its name without extension, 1 to 64 characters.
    name: String,
    /// Words about it, at most 128 characters.
    #[serde(default)]
    description: String,
    /// Take pictures over.
    #[serde(default = "yes")]
    video: bool,
    /// Take sound over.
    #[serde(default = "yes")]
    audio: bool,
    /// Nothing else is made with the same within three days; at most 50 characters.
    #[serde(default)]
    token: String,
    /// To be read again with it, at most 1000 characters.
    #[serde(default)]
    context: String,
}

const fn yes() -> bool {
    true
}

/// A new file in the making, or made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Composition {
    /// UUID; that of the recording which holds the new file.
    composition_id: String,
    /// `waiting`, `running`, `finished`, `failed`.
    state: String,
    /// Hundredths, 0 to 100.
    progress: u32,
    /// Why it failed: a stable short name, a colon, words. Empty otherwise.
    problem: String,
    /// UUID of the new file; null until it is there.
    file_id: Option<String>,
    /// The stream that it is said to be of.
    stream: Stream,
    /// In order.
    pieces: Vec<Piece>,
    /// Its name without extension.
    name: String,
    /// Words about it.
    description: String,
    /// With pictures.
    video: bool,
    /// With sound.
    audio: bool,
    /// As given.
    token: String,
    /// As given.
    context: String,
    /// How often a worker was told to make it.
    attempts: u64,
    /// When it was asked for.
    created: Option<String>,
    /// When a worker was told first.
    begun: Option<String>,
    /// When it ended.
    ended: Option<String>,
}

impl From<v1::Composition> for Composition {
    fn from(one: v1::Composition) -> Self {
        let piece = |piece: v1::Piece| Piece {
            file_id: piece.file_id,
            from_ms: piece.from_ms,
            for_ms: piece.for_ms,
        };
        Composition {
            state: word(one.state().as_str_name(), "COMPOSITION_STATE_"),
            composition_id: one.composition_id,
            progress: one.progress,
            problem: one.problem,
            file_id: Some(one.file_id).filter(|id| !id.is_empty()),
            stream: one.stream.into(),
            pieces: one.pieces.into_iter().map(piece).collect(),
            name: one.name,
            description: one.description,
            video: !one.remove_video,
            audio: !one.remove_audio,
            token: one.token,
            context: one.context,
            attempts: one.attempts,
            created: instant(one.created_ms),
            begun: instant(one.begun_ms),
            ended: instant(one.ended_ms),
        }
    }
}

/// A page of compositions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Compositions {
    /// The newest first.
    compositions: Vec<Composition>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// Lists new files in the making, and those of the last three days.
#[utoipa::path(tag = "compositions", responses((status = 200, body = Compositions), Refusals))]
#[get("/compositions")]
pub(super) async fn list_compositions(caller: Caller, rest: Data<Rest>, page: Query<Paging>) -> Answer<Compositions> {
    let page = page.into_inner();
    let request = v1::ListCompositionsRequest {
        page_size: page.page_size,
        page_token: page.page_token,
    };
    let answer = rest.api.list_compositions(Request::new(request)).await?.into_inner();
    let seen = answer
        .compositions
        .into_iter()
        .filter(|one| caller.sees(one.stream.as_ref()));
    Ok(Json(Compositions {
        compositions: seen.map(Composition::from).collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// Asks for one MP4 of pieces of stored files. Nothing is coded anew; a worker makes it while nobody waits.
#[utoipa::path(tag = "compositions", responses((status = 200, body = Composition), Refusals))]
#[post("/compositions")]
pub(super) async fn create_composition(
    caller: Caller,
    rest: Data<Rest>,
    new: Json<NewComposition>,
) -> Answer<Composition> {
    let new = new.into_inner();
    // Of what the caller may not see nothing is taken.
    for piece in &new.pieces {
        let request = v1::GetFileRequest {
            file_id: piece.file_id.clone(),
        };
        let file = there(rest.api.get_file(Request::new(request)).await?.into_inner().file)?;
        if !caller.sees(file.stream.as_ref()) {
            return Err(unseen(&piece.file_id));
        }
    }
    let pieces = new.pieces.into_iter().map(|piece| v1::Piece {
        file_id: piece.file_id,
        from_ms: piece.from_ms,
        for_ms: piece.for_ms,
    });
    let request = v1::CreateCompositionRequest {
        pieces: pieces.collect(),
        name: new.name,
        description: new.description,
        remove_video: !new.video,
        remove_audio: !new.audio,
        token: new.token,
        context: new.context,
    };
    let answer = rest.api.create_composition(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.composition)?.into()))
}

/// Says how one stands.
#[utoipa::path(tag = "compositions", responses((status = 200, body = Composition), Refusals))]
#[get("/compositions/{composition_id}")]
pub(super) async fn get_composition(
    caller: Caller,
    rest: Data<Rest>,
    composition_id: Path<String>,
) -> Answer<Composition> {
    let request = v1::GetCompositionRequest {
        composition_id: composition_id.clone(),
    };
    let answer = rest.api.get_composition(Request::new(request)).await?.into_inner();
    let found = there(answer.composition)?;
    match caller.sees(found.stream.as_ref()) {
        true => Ok(Json(found.into())),
        false => Err(unseen(&composition_id)),
    }
}
