//! `/api/v1/rules`.

use actix_web::{
    delete, get, post,
    web::{Data, Json, Query},
};
use proto::v1::{self, rules_server::Rules as _};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Answer, Deleted, Paging, Refusals, Request, Rest, caller::Caller, deleted, documents::instant, templates::named,
    there,
};

/// What a rule covers. An application or stream that is empty means any.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Triple {
    /// Push domain.
    domain: String,
    /// Application.
    #[serde(default)]
    app: String,
    /// Stream name.
    #[serde(default)]
    stream: String,
}

/// A record rule to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRule {
    /// Push domain.
    domain: String,
    /// Application; empty: any.
    #[serde(default)]
    app: String,
    /// Stream name; empty: any.
    #[serde(default)]
    stream: String,
    /// Id or name of a record template.
    template: String,
}

/// A record rule.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rule {
    /// Push domain.
    domain: String,
    /// Application; null: any.
    app: Option<String>,
    /// Stream name; null: any.
    stream: Option<String>,
    /// UUID of its template.
    template_id: String,
    /// That template's name.
    template: String,
    /// When it was made.
    created: Option<String>,
}

impl From<v1::Rule> for Rule {
    fn from(rule: v1::Rule) -> Self {
        let key = rule.key.unwrap_or_default();
        let any = |text: String| (!text.is_empty()).then_some(text);
        Rule {
            domain: key.domain,
            app: any(key.app),
            stream: any(key.stream),
            template_id: rule.template_id,
            template: rule.template_name,
            created: instant(rule.created_ms),
        }
    }
}

/// A page of record rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rules {
    /// In the order of their triples.
    rules: Vec<Rule>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// Lists record rules.
#[utoipa::path(tag = "rules", responses((status = 200, body = Rules), Refusals))]
#[get("/rules")]
pub(super) async fn list_rules(caller: Caller, rest: Data<Rest>, page: Query<Paging>) -> Answer<Rules> {
    let page = page.into_inner();
    let request = v1::ListRulesRequest {
        page_size: page.page_size,
        page_token: page.page_token,
    };
    let answer = rest.api.list_rules(caller.request(request)).await?.into_inner();
    Ok(Json(Rules {
        rules: answer.rules.into_iter().map(Rule::from).collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// Binds a record template to a triple. The most specific rule wins.
#[utoipa::path(tag = "rules", responses((status = 200, body = Rule), Refusals))]
#[post("/rules")]
pub(super) async fn create_rule(caller: Caller, rest: Data<Rest>, rule: Json<NewRule>) -> Answer<Rule> {
    let rule = rule.into_inner();
    caller.domain(&rule.domain)?;
    let template = named(&rule.template).by.map(|by| match by {
        v1::template_ref::By::TemplateId(id) => v1::create_rule_request::Template::TemplateId(id),
        v1::template_ref::By::Name(name) => v1::create_rule_request::Template::TemplateName(name),
    });
    let request = v1::CreateRuleRequest {
        key: Some(v1::RuleKey {
            domain: rule.domain,
            app: rule.app,
            stream: rule.stream,
        }),
        template,
    };
    let answer = rest.api.create_rule(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.rule)?.into()))
}

/// Removes the rule of exactly this triple.
#[utoipa::path(tag = "rules", responses((status = 200, body = Deleted), Refusals))]
#[delete("/rules")]
pub(super) async fn delete_rule(caller: Caller, rest: Data<Rest>, triple: Query<Triple>) -> Answer<Deleted> {
    let Triple { domain, app, stream } = triple.into_inner();
    caller.domain(&domain)?;
    let what = format!("{domain}/{app}/{stream}");
    let request = v1::DeleteRuleRequest {
        key: Some(v1::RuleKey { domain, app, stream }),
    };
    rest.api.delete_rule(Request::new(request)).await?;
    Ok(deleted(what))
}
