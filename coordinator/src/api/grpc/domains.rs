//! Service `Domains`.

use proto::v1;
use shared::{
    ids::{StreamKey, check_domain},
    secret::{Sealed, Secret, random_text},
    wire,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::{Api, cut, status::Failure};
use crate::{
    actors::coordinator::{Decide, Moment},
    doors::{Ban, DomainChange, DoorError, MAX_GRACE_S, MAX_KEY, PushAuth, PushDomain},
    planner::State,
};

fn written(domain: &PushDomain) -> v1::Domain {
    v1::Domain {
        name: domain.name.clone(),
        enabled: domain.enabled,
        push_auth: domain.auth.enabled,
        grace_s: domain.auth.grace_s,
        has_master_key: domain.auth.master.is_some(),
        has_backup_key: domain.auth.backup.is_some(),
        created_ms: domain.created.as_millis(),
    }
}

fn written_ban(ban: &Ban) -> v1::Ban {
    v1::Ban {
        stream: Some((&ban.stream).into()),
        created_ms: ban.created.as_millis(),
        until_ms: ban.until.as_millis(),
        reason: ban.reason.clone(),
    }
}

fn name(name: &str) -> Result<String, Failure> {
    check_domain(name).map_err(|error| Failure::invalid(format!("name: {error}")))
}

fn stream(key: Option<v1::StreamKey>) -> Result<StreamKey, Failure> {
    Ok(wire::required("stream", key)?.try_into()?)
}

impl Api {
    fn sealed(&self, domain: &str, field: &str, key: &str) -> Result<Option<Sealed>, Failure> {
        if key.is_empty() {
            return Ok(None);
        }
        if key.chars().count() > MAX_KEY {
            return Err(Failure::invalid(format!("{field}: has more than {MAX_KEY} characters")));
        }
        let sealed = self.tools.vault.seal(&PushDomain::purpose(domain), &Secret::new(key));
        sealed.map(Some).map_err(Failure::internal)
    }

    fn opened(&self, domain: &str, sealed: Option<&Sealed>) -> Result<String, Failure> {
        let Some(sealed) = sealed else { return Ok(String::new()) };
        let opened = self.tools.vault.open(&PushDomain::purpose(domain), sealed);
        opened.map(|key| key.reveal().to_owned()).map_err(Failure::internal)
    }

    async fn domain(&self, name: String) -> Result<PushDomain, Failure> {
        Ok(self.look(move |state| state.doors.domain(&name).cloned()).await??)
    }

    async fn door<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut State, Moment<'_>) -> Result<(T, shared::store::Txn), DoorError> + Send + 'static,
    ) -> Result<T, Failure> {
        Ok(self.handle.ask(Decide(Box::new(decide))).await??)
    }
}

#[tonic::async_trait]
impl v1::domains_server::Domains for Api {
    async fn create_domain(
        &self,
        request: Request<v1::CreateDomainRequest>,
    ) -> Result<Response<v1::CreateDomainResponse>, Status> {
        let request = request.into_inner();
        let name = name(&request.name)?;
        let key = match request.master_key.is_empty() {
            true => random_text(32).map_err(Failure::internal)?,
            false => request.master_key,
        };
        let auth = PushAuth {
            enabled: !request.open,
            master: self.sealed(&name, "master_key", &key)?,
            backup: None,
            grace_s: 0,
        };
        let made = self.door(move |state, moment| {
            let domain = PushDomain {
                name,
                enabled: true,
                auth,
                created: moment.now,
            };
            Ok((domain.clone(), state.doors.add_domain(domain)?))
        });
        let made = made.await?;
        info!(domain = made.name, "push domain added");
        Ok(Response::new(v1::CreateDomainResponse {
            domain: Some(written(&made)),
        }))
    }

    async fn get_domain(
        &self,
        request: Request<v1::GetDomainRequest>,
    ) -> Result<Response<v1::GetDomainResponse>, Status> {
        let found = self.domain(name(&request.into_inner().name)?).await?;
        Ok(Response::new(v1::GetDomainResponse {
            domain: Some(written(&found)),
        }))
    }

    async fn list_domains(
        &self,
        _: Request<v1::ListDomainsRequest>,
    ) -> Result<Response<v1::ListDomainsResponse>, Status> {
        let domains = self.look(|state| state.doors.domains().map(written).collect()).await?;
        Ok(Response::new(v1::ListDomainsResponse { domains }))
    }

    async fn update_domain(
        &self,
        request: Request<v1::UpdateDomainRequest>,
    ) -> Result<Response<v1::UpdateDomainResponse>, Status> {
        let request = request.into_inner();
        let name = name(&request.name)?;
        let key = |field, key: Option<String>| key.map(|key| self.sealed(&name, field, &key)).transpose();
        let change = DomainChange {
            enabled: request.enabled,
            auth: request.push_auth,
            master: key("master_key", request.master_key)?,
            backup: key("backup_key", request.backup_key)?,
            grace_s: request.grace_s,
        };
        if change.grace_s.is_some_and(|grace| grace > MAX_GRACE_S) {
            return Err(Failure::invalid(format!("grace_s: 0 to {MAX_GRACE_S} s are allowed")).into());
        }
        let changed = self
            .door(move |state, _| state.doors.update_domain(&name, change))
            .await?;
        info!(domain = changed.name, "push domain changed");
        Ok(Response::new(v1::UpdateDomainResponse {
            domain: Some(written(&changed)),
        }))
    }

    async fn delete_domain(
        &self,
        request: Request<v1::DeleteDomainRequest>,
    ) -> Result<Response<v1::DeleteDomainResponse>, Status> {
        let name = name(&request.into_inner().name)?;
        info!(domain = name, "push domain deleted");
        self.door(move |state, _| Ok(((), state.doors.delete_domain(&name)?)))
            .await?;
        Ok(Response::new(v1::DeleteDomainResponse {}))
    }

    async fn get_push_keys(
        &self,
        request: Request<v1::GetPushKeysRequest>,
    ) -> Result<Response<v1::GetPushKeysResponse>, Status> {
        let found = self.domain(name(&request.into_inner().name)?).await?;
        Ok(Response::new(v1::GetPushKeysResponse {
            master_key: self.opened(&found.name, found.auth.master.as_ref())?,
            backup_key: self.opened(&found.name, found.auth.backup.as_ref())?,
        }))
    }

    async fn drop_stream(
        &self,
        request: Request<v1::DropStreamRequest>,
    ) -> Result<Response<v1::DropStreamResponse>, Status> {
        let stream = stream(request.into_inner().stream)?;
        self.door(move |state, moment| Ok(((), state.drop_stream(&stream, moment.now)?)))
            .await?;
        Ok(Response::new(v1::DropStreamResponse {}))
    }

    async fn create_ban(
        &self,
        request: Request<v1::CreateBanRequest>,
    ) -> Result<Response<v1::CreateBanResponse>, Status> {
        let request = request.into_inner();
        let stream = stream(request.stream)?;
        let until = wire::clock_if_any("until_ms", request.until_ms).map_err(Failure::from)?;
        let reason = request.reason;
        let ban = self.door(move |state, moment| {
            let ban = Ban::new(stream, moment.now, until, reason)?;
            Ok((ban.clone(), state.forbid(ban, moment.now)?))
        });
        let ban = ban.await?;
        info!(stream = %ban.stream, until = %ban.until, "stream forbidden");
        Ok(Response::new(v1::CreateBanResponse {
            ban: Some(written_ban(&ban)),
        }))
    }

    async fn list_bans(&self, request: Request<v1::ListBansRequest>) -> Result<Response<v1::ListBansResponse>, Status> {
        let scope = super::scope(&request);
        let v1::ListBansRequest { page_size, page_token } = request.into_inner();
        let page = wire::page(page_size, page_token).map_err(Failure::from)?;
        let after: Option<StreamKey> = match page.token.as_str() {
            "" => None,
            token => Some(
                token
                    .parse()
                    .map_err(|_| Failure::invalid("page_token is not one of this list's"))?,
            ),
        };
        let (wanted, now) = (page.entries().saturating_add(1), self.tools.clock.now());
        let list = self.look(move |state| -> Vec<Ban> {
            let fits = |ban: &&Ban| {
                now < ban.until
                    && scope.covers(ban.stream.domain())
                    && after.as_ref().is_none_or(|after| ban.stream > *after)
            };
            state.doors.bans().filter(fits).take(wanted).cloned().collect()
        });
        let (bans, next_page_token) = cut(list.await?, &page, |ban| ban.stream.to_string());
        Ok(Response::new(v1::ListBansResponse {
            bans: bans.iter().map(written_ban).collect(),
            next_page_token,
        }))
    }

    async fn delete_ban(
        &self,
        request: Request<v1::DeleteBanRequest>,
    ) -> Result<Response<v1::DeleteBanResponse>, Status> {
        let stream = stream(request.into_inner().stream)?;
        self.door(move |state, _| Ok(((), state.doors.resume(&stream)))).await?;
        Ok(Response::new(v1::DeleteBanResponse {}))
    }
}
