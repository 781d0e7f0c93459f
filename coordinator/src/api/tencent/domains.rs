//! Push domains and push keys.

use serde_json::{Value, json};
use shared::{
    ids::check_domain,
    secret::{Sealed, Secret, random_text},
};

use super::{
    actions::{Answer, Context, done, field},
    error::ApiError,
    params::Fields,
    streams::Paging,
    text::beijing,
};
use crate::doors::{DomainChange, DoorError, MAX_DOMAINS, MAX_GRACE_S, MAX_KEY, PushAuth, PushDomain};

fn name(fields: &mut Fields) -> Result<String, ApiError> {
    let name = fields.required("DomainName")?;
    check_domain(&name).map_err(|error| ApiError::new("InvalidParameter.DomainFormatError", error))
}

/// Only push domains are kept: nothing is played from here.
fn push_only(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.required_int("DomainType", 0..=1)? {
        0 => Ok(()),
        _ => Err(ApiError::unsupported(
            "DomainType 1, a play domain, is not supported: this server records",
        )),
    }
}

fn seal(cx: &Context<'_>, name: &str, key: &str) -> Result<Sealed, ApiError> {
    cx.tools
        .vault
        .seal(&PushDomain::purpose(name), &Secret::new(key))
        .map_err(|error| ApiError::new("InternalError", error))
}

pub(super) async fn add(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let name = name(&mut fields)?;
    push_only(&mut fields)?;
    fields.without_effect(&["PlayType", "VerifyOwnerType"]);
    fields.refuse(&["IsDelayLive", "IsMiniProgramLive"])?;
    fields.finish()?;
    cx.caller.check_domain(&name)?;
    // As documented, a new push domain asks for keys; whoever may manage it reads the key it was given.
    let key = random_text(32).map_err(|error| ApiError::new("InternalError", error))?;
    let auth = PushAuth {
        enabled: true,
        master: Some(seal(cx, &name, &key)?),
        backup: None,
        grace_s: 0,
    };
    cx.decide(move |state, moment| -> Result<_, ApiError> {
        let domain = PushDomain {
            name,
            enabled: true,
            auth,
            created: moment.now,
        };
        Ok(((), state.doors.add_domain(domain)?))
    })
    .await?;
    done()
}

pub(super) async fn delete(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let name = name(&mut fields)?;
    push_only(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(&name)?;
    cx.decide(move |state, _| -> Result<_, ApiError> { Ok(((), state.doors.delete_domain(&name)?)) })
        .await?;
    done()
}

async fn switch(cx: &Context<'_>, mut fields: Fields, on: bool) -> Answer {
    let name = name(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(&name)?;
    cx.decide(move |state, _| {
        let change = DomainChange {
            enabled: Some(on),
            ..DomainChange::default()
        };
        let changed = state.doors.update_domain(&name, change);
        let (_, txn) = changed.map_err(|error| match error {
            DoorError::Unknown(_) => ApiError::new("ResourceNotFound", error),
            error => error.into(),
        })?;
        Ok::<_, ApiError>(((), txn))
    })
    .await?;
    done()
}

pub(super) async fn enable(cx: &Context<'_>, fields: Fields) -> Answer {
    switch(cx, fields, true).await
}

pub(super) async fn forbid(cx: &Context<'_>, fields: Fields) -> Answer {
    switch(cx, fields, false).await
}

fn written(domain: &PushDomain) -> Value {
    json!({
        "Name": domain.name,
        "Type": 0,
        "Status": u8::from(domain.enabled),
        "CreateTime": beijing(domain.created),
        "BCName": 0,
        "TargetDomain": "",
        "PlayType": 1,
        "IsDelayLive": 0,
        "CurrentCName": "",
        "RentTag": 0,
        "RentExpireTime": "",
        "IsMiniProgramLive": 0,
    })
}

pub(super) async fn describe(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let name = name(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(&name)?;
    let found = cx.look(move |state| state.doors.domain(&name).map(written)).await?;
    field("DomainInfo", found?)
}

pub(super) async fn list(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let status = fields.switch("DomainStatus")?;
    let play = fields.switch("DomainType")?.unwrap_or(false);
    let prefix = fields.text("DomainPrefix")?.unwrap_or_default().to_lowercase();
    let paging = Paging::read(&mut fields, 10..=100)?;
    let delayed = fields.switch("IsDelayLive")?.unwrap_or(false);
    fields.without_effect(&["PlayType"]);
    fields.finish()?;
    let scope = cx.caller.scope.clone();
    let (all, count) = cx
        .look(move |state| {
            let fits = |domain: &&PushDomain| {
                scope.covers(&domain.name)
                    && !play
                    && !delayed
                    && status.is_none_or(|on| on == domain.enabled)
                    && domain.name.starts_with(&prefix)
            };
            let all: Vec<Value> = state.doors.domains().filter(fits).map(written).collect();
            (all, state.doors.domains().count())
        })
        .await?;
    let total = all.len();
    let (page, _) = paging.cut(all);
    let mut out = serde_json::Map::new();
    out.insert("AllCount".to_owned(), json!(total));
    out.insert("DomainList".to_owned(), page.into());
    out.insert("CreateLimitCount".to_owned(), json!(MAX_DOMAINS.saturating_sub(count)));
    out.insert("PlayTypeCount".to_owned(), json!([0, 0, 0]));
    Ok(out)
}

fn no_record(error: DoorError) -> ApiError {
    match error {
        DoorError::Unknown(_) => ApiError::new("ResourceNotFound.PushDomainNoRecord", error),
        error => error.into(),
    }
}

pub(super) async fn describe_keys(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let name = name(&mut fields)?;
    fields.finish()?;
    cx.caller.check_domain(&name)?;
    if !cx.caller.scope.manage {
        return Err(ApiError::unauthorized("push keys are shown to keys that may manage"));
    }
    let domain = cx.look(move |state| state.doors.domain(&name).cloned()).await?;
    let domain = domain.map_err(no_record)?;
    let open = |sealed: &Option<Sealed>| match sealed {
        None => Ok(String::new()),
        Some(sealed) => cx
            .tools
            .vault
            .open(&PushDomain::purpose(&domain.name), sealed)
            .map(|key| key.reveal().to_owned())
            .map_err(|error| ApiError::new("InternalError", error)),
    };
    field(
        "PushAuthKeyInfo",
        json!({
            "DomainName": domain.name,
            "Enable": u8::from(domain.auth.enabled),
            "MasterAuthKey": open(&domain.auth.master)?,
            "BackupAuthKey": open(&domain.auth.backup)?,
            "AuthDelta": domain.auth.grace_s,
        }),
    )
}

pub(super) async fn modify_keys(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let name = name(&mut fields)?;
    let auth = fields.switch("Enable")?;
    let mut key = |field: &str| match fields.text(field)? {
        None => Ok(None),
        Some(key) if key.is_empty() => Ok(Some(None)),
        Some(key) if key.chars().count() <= MAX_KEY => Ok(Some(Some(seal(cx, &name, &key)?))),
        Some(_) => Err(ApiError::value(field, format!("has more than {MAX_KEY} characters"))),
    };
    let (master, backup) = (key("MasterAuthKey")?, key("BackupAuthKey")?);
    let grace = fields.int("AuthDelta", 0..=i64::from(MAX_GRACE_S))?;
    fields.finish()?;
    cx.caller.check_domain(&name)?;
    cx.decide(move |state, _| {
        let change = DomainChange {
            enabled: None,
            auth,
            master,
            backup,
            grace_s: grace.and_then(|grace| u32::try_from(grace).ok()),
        };
        let (_, txn) = state.doors.update_domain(&name, change).map_err(no_record)?;
        Ok::<_, ApiError>(((), txn))
    })
    .await?;
    done()
}
