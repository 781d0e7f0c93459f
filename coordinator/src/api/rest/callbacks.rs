//! `/api/v1/callback-templates`, `/api/v1/callback-rules`: who is told of what.

use actix_web::{
    delete, get, post, put,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, callbacks_server::Callbacks as _};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Answer, Deleted, Refusals, Request, Rest, caller::Caller, deleted, documents::instant, there};

/// Where each kind of event goes; a kind that is absent is not told.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Urls {
    /// A push begins.
    #[serde(skip_serializing_if = "String::is_empty")]
    push_start: String,
    /// A push ends.
    #[serde(skip_serializing_if = "String::is_empty")]
    push_end: String,
    /// A file is in the library.
    #[serde(skip_serializing_if = "String::is_empty")]
    file: String,
    /// A recording begins, pauses, goes on, ends.
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    /// Something of a recording is missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    exception: String,
    /// Something is wrong with a push.
    #[serde(skip_serializing_if = "String::is_empty")]
    push_exception: String,
}

impl From<Option<v1::CallbackUrls>> for Urls {
    fn from(urls: Option<v1::CallbackUrls>) -> Self {
        let urls = urls.unwrap_or_default();
        Urls {
            push_start: urls.push_start,
            push_end: urls.push_end,
            file: urls.file,
            status: urls.status,
            exception: urls.exception,
            push_exception: urls.push_exception,
        }
    }
}

impl From<Urls> for v1::CallbackUrls {
    fn from(urls: Urls) -> Self {
        v1::CallbackUrls {
            push_start: urls.push_start,
            push_end: urls.push_end,
            file: urls.file,
            status: urls.status,
            exception: urls.exception,
            push_exception: urls.push_exception,
        }
    }
}

/// What a callback template says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCallbackTemplate {
    /// Unique; 1 to 255 bytes.
    name: String,
    /// Words about it, at most 1024 bytes.
    #[serde(default)]
    description: String,
    /// At least one.
    urls: Urls,
    /// Which exceptions are told: `error`, `warning`, `info`; empty: all.
    #[serde(default)]
    exception_levels: Vec<String>,
    /// What events are signed with, at most 128 bytes; empty: they are not; absent when it is changed: as before.
    key: Option<String>,
}

impl NewCallbackTemplate {
    fn wire(self) -> (v1::CallbackTemplateSpec, Option<String>) {
        let spec = v1::CallbackTemplateSpec {
            name: self.name,
            description: self.description,
            urls: Some(self.urls.into()),
            exception_levels: self.exception_levels,
        };
        (spec, self.key)
    }
}

/// A callback template.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallbackTemplate {
    /// The millisecond of its making.
    id: u64,
    /// Unique.
    name: String,
    /// Words about it.
    description: String,
    /// Where each kind of event goes.
    urls: Urls,
    /// Which exceptions are told; empty: all.
    exception_levels: Vec<String>,
    /// Its events are signed.
    signed: bool,
    /// When it was made.
    created: Option<String>,
    /// When it changed last.
    updated: Option<String>,
}

impl From<v1::CallbackTemplate> for CallbackTemplate {
    fn from(template: v1::CallbackTemplate) -> Self {
        let spec = template.spec.unwrap_or_default();
        CallbackTemplate {
            id: template.id,
            name: spec.name,
            description: spec.description,
            urls: spec.urls.into(),
            exception_levels: spec.exception_levels,
            signed: template.signed,
            created: instant(template.created_ms),
            updated: instant(template.updated_ms),
        }
    }
}

/// All callback templates.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallbackTemplates {
    /// In the order of their making; at most 50.
    templates: Vec<CallbackTemplate>,
}

/// Lists callback templates.
#[utoipa::path(tag = "callbacks", responses((status = 200, body = CallbackTemplates), Refusals))]
#[get("/callback-templates")]
pub(super) async fn list_callback_templates(caller: Caller, rest: Data<Rest>) -> Answer<CallbackTemplates> {
    caller.everywhere()?;
    let request = Request::new(v1::ListCallbackTemplatesRequest {});
    let answer = rest.api.list_callback_templates(request).await?.into_inner();
    Ok(Json(CallbackTemplates {
        templates: answer.templates.into_iter().map(CallbackTemplate::from).collect(),
    }))
}

/// Makes a callback template.
#[utoipa::path(tag = "callbacks", responses((status = 200, body = CallbackTemplate), Refusals))]
#[post("/callback-templates")]
pub(super) async fn create_callback_template(
    caller: Caller,
    rest: Data<Rest>,
    template: Json<NewCallbackTemplate>,
) -> Answer<CallbackTemplate> {
    caller.everywhere()?;
    let (spec, key) = template.into_inner().wire();
    let request = v1::CreateCallbackTemplateRequest {
        spec: Some(spec),
        key: key.unwrap_or_default(),
    };
    let answer = rest
        .api
        .create_callback_template(Request::new(request))
        .await?
        .into_inner();
    Ok(Json(there(answer.template)?.into()))
}

/// Replaces what a callback template says, also for events that wait.
#[utoipa::path(tag = "callbacks", responses((status = 200, body = CallbackTemplate), Refusals))]
#[put("/callback-templates/{template}")]
pub(super) async fn update_callback_template(
    caller: Caller,
    rest: Data<Rest>,
    named: Path<String>,
    template: Json<NewCallbackTemplate>,
) -> Answer<CallbackTemplate> {
    caller.everywhere()?;
    let (spec, key) = template.into_inner().wire();
    let request = v1::UpdateCallbackTemplateRequest {
        template: named.into_inner(),
        spec: Some(spec),
        key,
    };
    let answer = rest
        .api
        .update_callback_template(Request::new(request))
        .await?
        .into_inner();
    Ok(Json(there(answer.template)?.into()))
}

/// Removes a callback template that no rule uses.
#[utoipa::path(tag = "callbacks", responses((status = 200, body = Deleted), Refusals))]
#[delete("/callback-templates/{template}")]
pub(super) async fn delete_callback_template(caller: Caller, rest: Data<Rest>, named: Path<String>) -> Answer<Deleted> {
    caller.everywhere()?;
    let request = v1::DeleteCallbackTemplateRequest {
        template: named.clone(),
    };
    rest.api.delete_callback_template(Request::new(request)).await?;
    Ok(deleted(named.into_inner()))
}

/// A callback rule to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCallbackRule {
    /// Push domain.
    domain: String,
    /// Application; empty: any that has no rule of its own.
    #[serde(default)]
    app: String,
    /// Id or name of a callback template.
    template: String,
}

/// Which callback rule.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Place {
    /// Push domain.
    domain: String,
    /// Application; empty: the rule made without one.
    #[serde(default)]
    app: String,
}

/// A callback rule.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallbackRule {
    /// Push domain.
    domain: String,
    /// Application; null: any.
    app: Option<String>,
    /// Its callback template.
    template_id: u64,
    /// That template's name.
    template: String,
    /// When it was made.
    created: Option<String>,
}

impl From<v1::CallbackRule> for CallbackRule {
    fn from(rule: v1::CallbackRule) -> Self {
        CallbackRule {
            domain: rule.domain,
            app: (!rule.app.is_empty()).then_some(rule.app),
            template_id: rule.template_id,
            template: rule.template_name,
            created: instant(rule.created_ms),
        }
    }
}

/// All callback rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallbackRules {
    /// In the order of their places; at most 50.
    rules: Vec<CallbackRule>,
}

/// Lists callback rules.
#[utoipa::path(tag = "callbacks", responses((status = 200, body = CallbackRules), Refusals))]
#[get("/callback-rules")]
pub(super) async fn list_callback_rules(caller: Caller, rest: Data<Rest>) -> Answer<CallbackRules> {
    let request = Request::new(v1::ListCallbackRulesRequest {});
    let answer = rest.api.list_callback_rules(request).await?.into_inner();
    let rules = answer.rules.into_iter().map(CallbackRule::from);
    Ok(Json(CallbackRules {
        rules: rules.filter(|rule| caller.domain(&rule.domain).is_ok()).collect(),
    }))
}

/// Lets a callback template hear of a domain's streams.
#[utoipa::path(tag = "callbacks", responses((status = 200, body = CallbackRule), Refusals))]
#[post("/callback-rules")]
pub(super) async fn create_callback_rule(
    caller: Caller,
    rest: Data<Rest>,
    rule: Json<NewCallbackRule>,
) -> Answer<CallbackRule> {
    let rule = rule.into_inner();
    caller.domain(&rule.domain)?;
    let request = v1::CreateCallbackRuleRequest {
        domain: rule.domain,
        app: rule.app,
        template: rule.template,
    };
    let answer = rest.api.create_callback_rule(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.rule)?.into()))
}

/// Removes a callback rule.
#[utoipa::path(tag = "callbacks", responses((status = 200, body = Deleted), Refusals))]
#[delete("/callback-rules")]
pub(super) async fn delete_callback_rule(caller: Caller, rest: Data<Rest>, place: Query<Place>) -> Answer<Deleted> {
    let Place { domain, app } = place.into_inner();
    caller.domain(&domain)?;
    let what = format!("{domain}/{app}");
    let request = v1::DeleteCallbackRuleRequest { domain, app };
    rest.api.delete_callback_rule(Request::new(request)).await?;
    Ok(deleted(what))
}
