//! Callback templates and rules: who is told of what.

use serde_json::{Value, json};
use shared::secret::Sealed;

use super::{
    actions::{Answer, Context, done, field},
    error::ApiError,
    params::Fields,
    text::beijing,
};
use crate::events::{
    Kind, Policy,
    book::{Book, BookError, CallbackSpec, CallbackTemplate, Level, Place},
    desk::{self, KeyError},
};

/// Kinds of events and the names of their URLs.
const URLS: [(&str, Kind); 6] = [
    ("StreamBeginNotifyUrl", Kind::PushStart),
    ("StreamEndNotifyUrl", Kind::PushEnd),
    ("RecordNotifyUrl", Kind::File),
    ("RecordStatusNotifyUrl", Kind::Status),
    ("RecordExceptionNotifyUrl", Kind::Exception),
    ("PushExceptionNotifyUrl", Kind::PushException),
];
/// URLs of what this server does not do.
const WITHOUT_EFFECT: [&str; 4] = [
    "SnapshotNotifyUrl",
    "PornCensorshipNotifyUrl",
    "StreamMixNotifyUrl",
    "AudioAuditNotifyUrl",
];

/// What a request says of a template; what it leaves out is absent.
struct Said {
    name: Option<String>,
    description: Option<String>,
    urls: Vec<(Kind, String)>,
    levels: Option<Vec<Level>>,
    /// Some(None): events are not signed.
    key: Option<Option<Sealed>>,
}

fn level(text: &str) -> Result<Level, ApiError> {
    let found = Level::ALL.into_iter().find(|level| level.as_str() == text);
    found.ok_or_else(|| {
        ApiError::value(
            "RecordExceptionLevels",
            format!("holds {text:?}, it must be error, warning or info"),
        )
    })
}

fn said(cx: &Context<'_>, fields: &mut Fields) -> Result<Said, ApiError> {
    let name = fields.text("TemplateName")?;
    let description = fields.text("Description")?;
    let mut urls = Vec::new();
    for (name, kind) in URLS {
        if let Some(url) = fields.text(name)? {
            urls.push((kind, url));
        }
    }
    let levels = fields.texts("RecordExceptionLevels", Level::ALL.len(), 16)?;
    let levels: Vec<Level> = levels.iter().map(|text| level(text)).collect::<Result<_, _>>()?;
    let key = match fields.text("CallbackKey")? {
        None => None,
        Some(key) => Some(desk::seal(&cx.tools.vault, &key).map_err(|error| match error {
            KeyError::Shape => ApiError::value("CallbackKey", error),
            KeyError::Vault(error) => ApiError::new("InternalError", error),
        })?),
    };
    fields.without_effect(&WITHOUT_EFFECT);
    Ok(Said {
        name,
        description,
        urls,
        levels: (!levels.is_empty()).then_some(levels),
        key,
    })
}

impl Said {
    /// Lays what was said over what is there. An empty URL takes it away.
    fn over(&self, spec: &mut CallbackSpec) {
        if let Some(name) = &self.name {
            spec.name.clone_from(name);
        }
        if let Some(description) = &self.description {
            spec.description.clone_from(description);
        }
        for (kind, url) in &self.urls {
            match url.is_empty() {
                true => drop(spec.urls.remove(kind)),
                false => drop(spec.urls.insert(*kind, url.clone())),
            }
        }
        if let Some(levels) = &self.levels {
            spec.levels.clone_from(levels);
        }
        if let Some(key) = &self.key {
            spec.key.clone_from(key);
        }
    }
}

fn refused(error: BookError) -> ApiError {
    let code = match &error {
        BookError::Name => "InvalidParameter.ArgsNotMatch",
        BookError::Url { .. } => "InvalidParameter.UrlNotSafe",
        BookError::NameTaken(_) | BookError::Description | BookError::NoUrl => "InvalidParameterValue",
        BookError::TooManyTemplates => "InternalError.ConfOutLimit",
        BookError::NoTemplate(_) => "FailedOperation.NotFound",
        BookError::InUse(..) => "FailedOperation.ConfInUsed",
        BookError::RuleExists(_) => "FailedOperation.RuleAlreadyExist",
        BookError::TooManyRules => "InternalError.RuleOutLimit",
        BookError::NoRule(_) => "FailedOperation.NotFound",
    };
    ApiError::new(code, error)
}

fn policy(cx: &Context<'_>) -> Policy {
    Policy {
        allow: cx.tools.config.events.allow.clone(),
    }
}

async fn change<T>(cx: &Context<'_>, decide: impl FnMut(&mut Book) -> Result<T, BookError>) -> Result<T, ApiError> {
    desk::change(&cx.tools.repo, decide).await?.map_err(refused)
}

pub(super) async fn create(cx: &Context<'_>, mut fields: Fields) -> Answer {
    cx.caller.check_all()?;
    let said = said(cx, &mut fields)?;
    fields.finish()?;
    if said.name.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::missing("TemplateName"));
    }
    let (policy, now) = (policy(cx), cx.tools.clock.now());
    let made = change(cx, |book| {
        let mut spec = CallbackSpec::default();
        said.over(&mut spec);
        book.create_template(spec, &policy, now)
    })
    .await?;
    field("TemplateId", made.id)
}

fn number(fields: &mut Fields) -> Result<u64, ApiError> {
    let number = fields.required_int("TemplateId", 0..=i64::MAX)?;
    Ok(u64::try_from(number).unwrap_or_default())
}

pub(super) async fn modify(cx: &Context<'_>, mut fields: Fields) -> Answer {
    cx.caller.check_all()?;
    let id = number(&mut fields)?;
    let said = said(cx, &mut fields)?;
    fields.finish()?;
    let (policy, now) = (policy(cx), cx.tools.clock.now());
    change(cx, |book| {
        book.update_template(id, |spec| said.over(spec), &policy, now)
    })
    .await?;
    done()
}

pub(super) async fn delete(cx: &Context<'_>, mut fields: Fields) -> Answer {
    cx.caller.check_all()?;
    let id = number(&mut fields)?;
    fields.finish()?;
    change(cx, |book| book.delete_template(id)).await?;
    done()
}

/// A template as answers show it. Its key is shown to keys that may manage.
fn written(cx: &Context<'_>, template: &CallbackTemplate) -> Result<Value, ApiError> {
    let spec = &template.spec;
    let key = match cx.caller.scope.manage {
        true => {
            desk::open(&cx.tools.vault, spec.key.as_ref()).map_err(|error| ApiError::new("InternalError", error))?
        }
        false => String::new(),
    };
    let levels: Vec<&str> = spec.levels.iter().map(|level| level.as_str()).collect();
    let mut out = json!({
        "TemplateId": template.id,
        "TemplateName": spec.name,
        "Description": spec.description,
        "CallbackKey": key,
        "RecordExceptionLevels": levels,
    });
    if let Some(out) = out.as_object_mut() {
        for (name, kind) in URLS {
            let url = spec.urls.get(&kind).cloned().unwrap_or_default();
            out.insert(name.to_owned(), json!(url));
        }
        for name in WITHOUT_EFFECT {
            out.insert(name.to_owned(), json!(""));
        }
    }
    Ok(out)
}

pub(super) async fn describe(cx: &Context<'_>, mut fields: Fields) -> Answer {
    cx.caller.check_all()?;
    let id = number(&mut fields)?;
    fields.finish()?;
    let book = desk::book(&cx.tools.repo).await?;
    let template = book.template(id).map_err(refused)?;
    field("Template", written(cx, template)?)
}

pub(super) async fn list(cx: &Context<'_>, fields: Fields) -> Answer {
    cx.caller.check_all()?;
    fields.finish()?;
    let book = desk::book(&cx.tools.repo).await?;
    let all: Vec<Value> = book
        .templates()
        .iter()
        .map(|template| written(cx, template))
        .collect::<Result<_, _>>()?;
    field("Templates", all)
}

/// The place of a rule. The protocol has no rule for every application.
fn place(fields: &mut Fields) -> Result<Place, ApiError> {
    let (domain, app) = (fields.required("DomainName")?, fields.required("AppName")?);
    Place::new(&domain, "").map_err(|error| ApiError::new("InvalidParameter.DomainFormatError", error))?;
    Place::new(&domain, &app).map_err(|error| ApiError::new("InvalidParameterValue", error))
}

pub(super) async fn create_rule(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let place = place(&mut fields)?;
    let template = number(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(&place.domain)?;
    let now = cx.tools.clock.now();
    let made = desk::change(&cx.tools.repo, |book| book.create_rule(place.clone(), template, now)).await?;
    made.map_err(|error| match error {
        BookError::NoTemplate(_) => ApiError::new("InvalidParameter.ConfNotFound", error),
        error => refused(error),
    })?;
    done()
}

pub(super) async fn delete_rule(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let place = place(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(&place.domain)?;
    change(cx, |book| book.delete_rule(&place)).await?;
    done()
}

pub(super) async fn list_rules(cx: &Context<'_>, fields: Fields) -> Answer {
    fields.finish()?;
    let book = desk::book(&cx.tools.repo).await?;
    let seen = book
        .rules()
        .iter()
        .filter(|rule| cx.caller.scope.covers(&rule.place.domain));
    let rules: Vec<Value> = seen
        .map(|rule| {
            json!({
                "CreateTime": beijing(rule.created),
                "UpdateTime": beijing(rule.created),
                "TemplateId": rule.template,
                "DomainName": rule.place.domain,
                "AppName": rule.place.app.as_deref().unwrap_or_default(),
            })
        })
        .collect();
    field("Rules", rules)
}
