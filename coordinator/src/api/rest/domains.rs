//! `/api/v1/domains` and `/api/v1/bans`: who may push.

use actix_web::{
    delete, get, patch, post,
    web::{Data, Json, Path, Query},
};
use proto::v1::{self, domains_server::Domains as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Answer, Deleted, Paging, Refusals, Request, Rest,
    caller::Caller,
    deleted,
    documents::{Stream, instant, moment},
    there,
};

/// A push domain.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Domain {
    /// In lower case.
    name: String,
    /// False: no push is taken.
    enabled: bool,
    /// Pushes must show a push key.
    push_auth: bool,
    /// Seconds that a push URL is good after its time.
    grace_s: u32,
    /// It has a first key.
    has_master_key: bool,
    /// It has a second key, which is as good.
    has_backup_key: bool,
    /// When it was made.
    created: Option<String>,
}

impl From<v1::Domain> for Domain {
    fn from(domain: v1::Domain) -> Self {
        Domain {
            name: domain.name,
            enabled: domain.enabled,
            push_auth: domain.push_auth,
            grace_s: domain.grace_s,
            has_master_key: domain.has_master_key,
            has_backup_key: domain.has_backup_key,
            created: instant(domain.created_ms),
        }
    }
}

/// All push domains.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Domains {
    /// In the order of their names.
    domains: Vec<Domain>,
}

/// A push domain to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDomain {
    /// A host's name; case does not matter.
    name: String,
    /// Pushes need no key.
    #[serde(default)]
    open: bool,
    /// Its first key, at most 256 characters; empty: a random one.
    #[serde(default)]
    master_key: String,
}

/// What changes of a push domain; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainChange {
    /// Take pushes, or none.
    enabled: Option<bool>,
    /// Ask for push keys, or not.
    push_auth: Option<bool>,
    /// First key, at most 256 characters; empty: none.
    master_key: Option<String>,
    /// Second key, at most 256 characters; empty: none.
    backup_key: Option<String>,
    /// Seconds that a push URL is good after its time, 0 to 2592000.
    grace_s: Option<u32>,
}

/// Push keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PushKeys {
    /// First key; empty: none.
    master_key: String,
    /// Second key; empty: none.
    backup_key: String,
}

/// A stream that must not be pushed for a while.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ban {
    /// Which.
    stream: Stream,
    /// Since when.
    created: Option<String>,
    /// Until when.
    until: Option<String>,
    /// In words.
    reason: String,
}

impl From<v1::Ban> for Ban {
    fn from(ban: v1::Ban) -> Self {
        Ban {
            stream: ban.stream.into(),
            created: instant(ban.created_ms),
            until: instant(ban.until_ms),
            reason: ban.reason,
        }
    }
}

/// A page of bans.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Bans {
    /// In the order of their streams.
    bans: Vec<Ban>,
    /// Empty on the last page, and only there.
    next_page_token: String,
}

/// A stream to be forbidden.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBan {
    /// Which.
    stream: Stream,
    /// Until when, at most 90 days ahead; null: for 7 days.
    until: Option<String>,
    /// In words, at most 2048 bytes.
    #[serde(default)]
    reason: String,
}

/// Lists push domains.
#[utoipa::path(tag = "domains", responses((status = 200, body = Domains), Refusals))]
#[get("/domains")]
pub(super) async fn list_domains(caller: Caller, rest: Data<Rest>) -> Answer<Domains> {
    let request = Request::new(v1::ListDomainsRequest {});
    let all = rest.api.list_domains(request).await?.into_inner().domains;
    let seen = all.into_iter().filter(|domain| caller.domain(&domain.name).is_ok());
    Ok(Json(Domains {
        domains: seen.map(Domain::from).collect(),
    }))
}

/// Adds a push domain that asks for keys; without `master_key` it gets a random one.
#[utoipa::path(tag = "domains", responses((status = 200, body = Domain), Refusals))]
#[post("/domains")]
pub(super) async fn create_domain(caller: Caller, rest: Data<Rest>, new: Json<NewDomain>) -> Answer<Domain> {
    let NewDomain { name, open, master_key } = new.into_inner();
    caller.domain(&name)?;
    let request = v1::CreateDomainRequest { name, open, master_key };
    let answer = rest.api.create_domain(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.domain)?.into()))
}

/// Reads a push domain.
#[utoipa::path(tag = "domains", responses((status = 200, body = Domain), Refusals))]
#[get("/domains/{domain}")]
pub(super) async fn get_domain(caller: Caller, rest: Data<Rest>, domain: Path<String>) -> Answer<Domain> {
    caller.domain(&domain)?;
    let request = v1::GetDomainRequest {
        name: domain.into_inner(),
    };
    let answer = rest.api.get_domain(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.domain)?.into()))
}

/// Changes what is given of a push domain. Pushes that run go on.
#[utoipa::path(tag = "domains", responses((status = 200, body = Domain), Refusals))]
#[patch("/domains/{domain}")]
pub(super) async fn update_domain(
    caller: Caller,
    rest: Data<Rest>,
    domain: Path<String>,
    change: Json<DomainChange>,
) -> Answer<Domain> {
    caller.domain(&domain)?;
    let change = change.into_inner();
    let request = v1::UpdateDomainRequest {
        name: domain.into_inner(),
        enabled: change.enabled,
        push_auth: change.push_auth,
        master_key: change.master_key,
        backup_key: change.backup_key,
        grace_s: change.grace_s,
    };
    let answer = rest.api.update_domain(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.domain)?.into()))
}

/// Forgets a push domain and its keys.
#[utoipa::path(tag = "domains", responses((status = 200, body = Deleted), Refusals))]
#[delete("/domains/{domain}")]
pub(super) async fn delete_domain(caller: Caller, rest: Data<Rest>, domain: Path<String>) -> Answer<Deleted> {
    caller.domain(&domain)?;
    let request = v1::DeleteDomainRequest { name: domain.clone() };
    rest.api.delete_domain(Request::new(request)).await?;
    Ok(deleted(domain.into_inner()))
}

/// Shows the push keys of a domain, to callers who may manage it.
#[utoipa::path(tag = "domains", responses((status = 200, body = PushKeys), Refusals))]
#[get("/domains/{domain}/push-keys")]
pub(super) async fn get_push_keys(caller: Caller, rest: Data<Rest>, domain: Path<String>) -> Answer<PushKeys> {
    caller.domain(&domain)?;
    caller.manages()?;
    let request = v1::GetPushKeysRequest {
        name: domain.into_inner(),
    };
    let keys = rest.api.get_push_keys(Request::new(request)).await?.into_inner();
    Ok(Json(PushKeys {
        master_key: keys.master_key,
        backup_key: keys.backup_key,
    }))
}

/// Ends a stream's push. Its publisher may come again.
#[utoipa::path(tag = "domains", responses((status = 200, body = Deleted), Refusals))]
#[post("/streams/{domain}/{app}/{stream}/drop")]
pub(super) async fn drop_stream(
    caller: Caller,
    rest: Data<Rest>,
    stream: Path<(String, String, String)>,
) -> Answer<Deleted> {
    let (domain, app, stream) = stream.into_inner();
    caller.domain(&domain)?;
    let name = format!("{domain}/{app}/{stream}");
    let request = v1::DropStreamRequest {
        stream: Some(v1::StreamKey { domain, app, stream }),
    };
    rest.api.drop_stream(Request::new(request)).await?;
    Ok(deleted(name))
}

/// Lists bans that are in force.
#[utoipa::path(tag = "domains", responses((status = 200, body = Bans), Refusals))]
#[get("/bans")]
pub(super) async fn list_bans(caller: Caller, rest: Data<Rest>, page: Query<Paging>) -> Answer<Bans> {
    let page = page.into_inner();
    let request = v1::ListBansRequest {
        page_size: page.page_size,
        page_token: page.page_token,
    };
    let answer = rest.api.list_bans(caller.request(request)).await?.into_inner();
    Ok(Json(Bans {
        bans: answer.bans.into_iter().map(Ban::from).collect(),
        next_page_token: answer.next_page_token,
    }))
}

/// Ends a stream's push and refuses its pushes for a while.
#[utoipa::path(tag = "domains", responses((status = 200, body = Ban), Refusals))]
#[post("/bans")]
pub(super) async fn create_ban(caller: Caller, rest: Data<Rest>, new: Json<NewBan>) -> Answer<Ban> {
    let new = new.into_inner();
    caller.domain(&new.stream.domain)?;
    let until = new.until.as_deref().map(|until| moment("until", until)).transpose()?;
    let request = v1::CreateBanRequest {
        stream: Some(new.stream.into()),
        until_ms: until.unwrap_or(0),
        reason: new.reason,
    };
    let answer = rest.api.create_ban(Request::new(request)).await?.into_inner();
    Ok(Json(there(answer.ban)?.into()))
}

/// Lets a stream be pushed again.
#[utoipa::path(tag = "domains", responses((status = 200, body = Deleted), Refusals))]
#[delete("/bans/{domain}/{app}/{stream}")]
pub(super) async fn delete_ban(
    caller: Caller,
    rest: Data<Rest>,
    stream: Path<(String, String, String)>,
) -> Answer<Deleted> {
    let (domain, app, stream) = stream.into_inner();
    caller.domain(&domain)?;
    let name = format!("{domain}/{app}/{stream}");
    let request = v1::DeleteBanRequest {
        stream: Some(v1::StreamKey { domain, app, stream }),
    };
    rest.api.delete_ban(Request::new(request)).await?;
    Ok(deleted(name))
}
