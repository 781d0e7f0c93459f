//! Service `Templates`.

use proto::v1;
use shared::{
    ids::TemplateId,
    template::{Template, TemplateSpec},
    wire::{self, WireError},
};
use tonic::{Request, Response, Status};

use super::{Api, cut, status::Failure};
use crate::{
    actors::coordinator::{Change, Look},
    catalog::TemplateRef,
};

fn reference(by: Option<v1::TemplateRef>) -> Result<TemplateRef, WireError> {
    match wire::required("template", by)?.by {
        Some(v1::template_ref::By::TemplateId(text)) => Ok(TemplateRef::Id(wire::id("template_id", &text)?)),
        Some(v1::template_ref::By::Name(name)) if !name.is_empty() => Ok(TemplateRef::Name(name)),
        _ => Err(WireError::new("template", "is missing: give its id or its name")),
    }
}

fn spec(spec: Option<v1::TemplateSpec>) -> Result<TemplateSpec, WireError> {
    wire::required("spec", spec)?.try_into()
}

#[tonic::async_trait]
impl v1::templates_server::Templates for Api {
    async fn create_template(
        &self,
        request: Request<v1::CreateTemplateRequest>,
    ) -> Result<Response<v1::CreateTemplateResponse>, Status> {
        let spec = spec(request.into_inner().spec).map_err(Failure::from)?;
        let made = self
            .change(move |catalog, moment| {
                let id = catalog.new_template_id(moment.ids, moment.now);
                catalog.create_template(spec, id, moment.now)
            })
            .await?;
        Ok(Response::new(v1::CreateTemplateResponse {
            template: Some((&made).into()),
        }))
    }

    async fn get_template(
        &self,
        request: Request<v1::GetTemplateRequest>,
    ) -> Result<Response<v1::GetTemplateResponse>, Status> {
        let by = reference(request.into_inner().template).map_err(Failure::from)?;
        let found = self
            .look(move |state| state.catalog.template(&by).cloned())
            .await?
            .map_err(Failure::from)?;
        Ok(Response::new(v1::GetTemplateResponse {
            template: Some((&found).into()),
        }))
    }

    async fn list_templates(
        &self,
        request: Request<v1::ListTemplatesRequest>,
    ) -> Result<Response<v1::ListTemplatesResponse>, Status> {
        let request = request.into_inner();
        let page = wire::page(request.page_size, request.page_token).map_err(Failure::from)?;
        let after: Option<TemplateId> = match page.token.as_str() {
            "" => None,
            token => Some(wire::id("page_token", token).map_err(Failure::from)?),
        };
        let wanted = page.entries() + 1;
        let list: Vec<Template> = self
            .look(move |state| {
                let rest = state
                    .catalog
                    .templates()
                    .filter(|template| after.is_none_or(|after| template.id > after));
                rest.take(wanted).cloned().collect()
            })
            .await?;
        let (list, next_page_token) = cut(list, &page, |template| template.id.to_string());
        let templates = list.iter().map(Into::into).collect();
        Ok(Response::new(v1::ListTemplatesResponse {
            templates,
            next_page_token,
        }))
    }

    async fn update_template(
        &self,
        request: Request<v1::UpdateTemplateRequest>,
    ) -> Result<Response<v1::UpdateTemplateResponse>, Status> {
        let request = request.into_inner();
        let by = reference(request.template).map_err(Failure::from)?;
        let spec = spec(request.spec).map_err(Failure::from)?;
        let changed = self
            .change(move |catalog, moment| catalog.update_template(&by, spec, moment.now))
            .await?;
        Ok(Response::new(v1::UpdateTemplateResponse {
            template: Some((&changed).into()),
        }))
    }

    async fn delete_template(
        &self,
        request: Request<v1::DeleteTemplateRequest>,
    ) -> Result<Response<v1::DeleteTemplateResponse>, Status> {
        let by = reference(request.into_inner().template).map_err(Failure::from)?;
        self.change(move |catalog, _| Ok(((), catalog.delete_template(&by)?)))
            .await?;
        Ok(Response::new(v1::DeleteTemplateResponse {}))
    }
}

impl Api {
    /// Changes templates or rules; the answer comes when the change is durable.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        decide: impl FnOnce(
            &mut crate::catalog::Catalog,
            crate::actors::coordinator::Moment<'_>,
        ) -> Result<(T, shared::store::Txn), crate::catalog::CatalogError>
        + Send
        + 'static,
    ) -> Result<T, Failure> {
        Ok(self.handle.ask(Change(Box::new(decide))).await??)
    }

    /// Looks at what is decided upon.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&crate::planner::State) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        Ok(self.handle.ask(Look(Box::new(look))).await?)
    }
}
