//! `/api/v1/templates`.

use actix_web::{
    delete, get, post, put,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, templates_server::Templates as _};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Answer, Deleted, Paging, Refusals, Request, Rest,
    caller::Caller,
    deleted,
    documents::{Template, TemplateSpec},
    there,
};

/// A page of templates.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Templates {
    /// In the order of their making.
    templates: Vec<Template>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// A template by its id or its name.
pub(super) fn named(text: &str) -> v1::TemplateRef {
    v1::TemplateRef {
        by: Some(match text.parse::<Uuid>() {
            Ok(_) => v1::template_ref::By::TemplateId(text.to_owned()),
            Err(_) => v1::template_ref::By::Name(text.to_owned()),
        }),
    }
}

/// Lists record templates.
#[utoipa::path(tag = "templates", responses((status = 200, body = Templates), Refusals))]
#[get("/templates")]
pub(super) async fn list_templates(_: Caller, rest: Data<Rest>, page: Query<Paging>) -> Answer<Templates> {
    let page = page.into_inner();
    let request = v1::ListTemplatesRequest {
        page_size: page.page_size,
        page_token: page.page_token,
    };
    let answer = rest.api.list_templates(Request::new(request)).await?.into_inner();
    Ok(Json(Templates {
        templates: answer.templates.into_iter().map(Template::from).collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// Makes a record template. Without any format it means: do not record.
#[utoipa::path(tag = "templates", responses((status = 200, body = Template), Refusals))]
#[post("/templates")]
pub(super) async fn create_template(caller: Caller, rest: Data<Rest>, spec: Json<TemplateSpec>) -> Answer<Template> {
    caller.everywhere()?;
    let request = v1::CreateTemplateRequest {
        spec: Some(spec.into_inner().into()),
    };
    let answer = rest.api.create_template(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.template)?.into()))
}

/// Reads a record template by its id or its name.
#[utoipa::path(tag = "templates", responses((status = 200, body = Template), Refusals))]
#[get("/templates/{template}")]
pub(super) async fn get_template(_: Caller, rest: Data<Rest>, template: Path<String>) -> Answer<Template> {
    let request = v1::GetTemplateRequest {
        template: Some(named(&template)),
    };
    let answer = rest.api.get_template(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.template)?.into()))
}

/// Replaces what a record template says, for publishes that start afterwards.
#[utoipa::path(tag = "templates", responses((status = 200, body = Template), Refusals))]
#[put("/templates/{template}")]
pub(super) async fn update_template(
    caller: Caller,
    rest: Data<Rest>,
    template: Path<String>,
    spec: Json<TemplateSpec>,
) -> Answer<Template> {
    caller.everywhere()?;
    let request = v1::UpdateTemplateRequest {
        template: Some(named(&template)),
        spec: Some(spec.into_inner().into()),
    };
    let answer = rest.api.update_template(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.template)?.into()))
}

/// Removes a record template that no rule uses.
#[utoipa::path(tag = "templates", responses((status = 200, body = Deleted), Refusals))]
#[delete("/templates/{template}")]
pub(super) async fn delete_template(caller: Caller, rest: Data<Rest>, template: Path<String>) -> Answer<Deleted> {
    caller.everywhere()?;
    let request = v1::DeleteTemplateRequest {
        template: Some(named(&template)),
    };
    rest.api.delete_template(Request::new(request)).await?;
    Ok(deleted(template.into_inner()))
}
