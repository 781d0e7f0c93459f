//! Record rules: which streams a template is for.

use serde_json::{Value, json};
use shared::rule::RuleKey;

use super::{
    actions::{Answer, Context, done, field},
    error::ApiError,
    params::Fields,
    text::beijing,
};
use crate::catalog::{CatalogError, TemplateRef};

/// The triple: an app or stream that is empty, or not there, means any.
fn key(fields: &mut Fields) -> Result<RuleKey, ApiError> {
    let domain = fields.required("DomainName")?;
    let app = fields.text("AppName")?.unwrap_or_default();
    let stream = fields.text("StreamName")?.unwrap_or_default();
    RuleKey::new(&domain, "", "").map_err(|error| ApiError::new("InvalidParameter.DomainFormatError", error))?;
    RuleKey::new(&domain, &app, &stream).map_err(|error| ApiError::new("InvalidParameterValue", error))
}

pub(super) async fn create(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let key = key(&mut fields)?;
    let number = fields.required_int("TemplateId", 0..=i64::MAX)?;
    fields.finish()?;
    cx.caller.check_domain(key.domain())?;
    let template = TemplateRef::Number(u64::try_from(number).unwrap_or_default());
    cx.change(move |catalog, moment| catalog.create_rule(key, &template, moment.now))
        .await?
        .map_err(|error| {
            let code = match &error {
                CatalogError::RuleExists(_) => "FailedOperation.RuleAlreadyExist",
                CatalogError::NoTemplate(_) => "InvalidParameter.ConfNotFound",
                CatalogError::TooManyRules(_) => "InternalError.RuleOutLimit",
                _ => "InternalError",
            };
            ApiError::new(code, error)
        })?;
    done()
}

pub(super) async fn delete(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let key = key(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(key.domain())?;
    cx.change(move |catalog, _| Ok(((), catalog.delete_rule(&key)?)))
        .await?
        .map_err(|error| ApiError::new("FailedOperation.NotFound", error))?;
    done()
}

pub(super) async fn list(cx: &Context<'_>, fields: Fields) -> Answer {
    fields.finish()?;
    let scope = cx.caller.scope.clone();
    let rules: Vec<Value> = cx
        .look(move |state| {
            let seen = state.catalog.rules().filter(|rule| scope.covers(rule.key.domain()));
            seen.map(|rule| {
                json!({
                    "CreateTime": beijing(rule.created),
                    "UpdateTime": beijing(rule.created),
                    "TemplateId": rule.template.number(),
                    "DomainName": rule.key.domain(),
                    "AppName": rule.key.app().unwrap_or_default(),
                    "StreamName": rule.key.stream().unwrap_or_default(),
                })
            })
            .collect()
        })
        .await?;
    field("Rules", rules)
}
