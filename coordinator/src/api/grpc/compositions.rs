//! Service `Compositions`.

use proto::v1;
use shared::{
    ids::RecordingId,
    wire::{self, WireError},
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Api, cut, status::Failure};
use crate::{
    actors::coordinator::Decide,
    api::compose::{Asked, Part},
};

fn asked(request: v1::CreateCompositionRequest) -> Result<Asked, WireError> {
    let part = |piece: v1::Piece| {
        Ok(Part {
            file: wire::id("pieces.file_id", &piece.file_id)?,
            from_ms: piece.from_ms,
            for_ms: piece.for_ms,
        })
    };
    Ok(Asked {
        parts: request.pieces.into_iter().map(part).collect::<Result<_, WireError>>()?,
        name: request.name,
        description: request.description,
        video: !request.remove_video,
        audio: !request.remove_audio,
        token: request.token,
        context: request.context,
        expires: None,
    })
}

#[tonic::async_trait]
impl v1::compositions_server::Compositions for Api {
    async fn create_composition(
        &self,
        request: Request<v1::CreateCompositionRequest>,
    ) -> Result<Response<v1::CreateCompositionResponse>, Status> {
        let asked = asked(request.into_inner()).map_err(Failure::from)?;
        let new = asked.resolve(&self.tools.repo, |_| true).await.map_err(Failure::from)?;
        let decide = Decide(Box::new(move |state, moment| {
            let made = state.compositions.create(new, moment.now, moment.ids);
            made.map_err(Failure::from)
        }));
        let made = self.handle.ask(decide).await.map_err(Failure::from)??;
        info!(composition = %made.id, stream = %made.new.stream, pieces = made.new.pieces.len(), "composition asked for");
        Ok(Response::new(v1::CreateCompositionResponse {
            composition: Some(wire::composition(&made, 0)),
        }))
    }

    async fn get_composition(
        &self,
        request: Request<v1::GetCompositionRequest>,
    ) -> Result<Response<v1::GetCompositionResponse>, Status> {
        let text = request.into_inner().composition_id;
        let id: RecordingId = wire::id("composition_id", &text).map_err(Failure::from)?;
        let found = self.look(move |state| {
            let found = state.compositions.get(id);
            found.map(|(one, progress)| wire::composition(one, progress))
        });
        let found = found.await?.ok_or_else(|| {
            Failure::not_found(format!(
                "no composition {id}, or it ended more than three days ago: `aircheck compose list` shows what there is"
            ))
        })?;
        Ok(Response::new(v1::GetCompositionResponse {
            composition: Some(found),
        }))
    }

    async fn list_compositions(
        &self,
        request: Request<v1::ListCompositionsRequest>,
    ) -> Result<Response<v1::ListCompositionsResponse>, Status> {
        let v1::ListCompositionsRequest { page_size, page_token } = request.into_inner();
        let page = wire::page(page_size, page_token).map_err(Failure::from)?;
        let before = match page.token.as_str() {
            "" => None,
            token => Some(wire::id("page_token", token).map_err(Failure::from)?),
        };
        let wanted = page.entries().saturating_add(1);
        let list = self.look(move |state| -> Vec<_> {
            let list = state.compositions.list(before).take(wanted);
            list.map(|(one, progress)| wire::composition(one, progress)).collect()
        });
        let (compositions, next_page_token) = cut(list.await?, &page, |one| one.composition_id.clone());
        Ok(Response::new(v1::ListCompositionsResponse {
            compositions,
            next_page_token,
        }))
    }
}
