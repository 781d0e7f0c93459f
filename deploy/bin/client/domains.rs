//! `aircheck domain …`

use std::error::Error;
use std::time::Duration;

use proto::v1::domains_client::DomainsClient;
use proto::v1::{
    Ban, CreateBanRequest, CreateDomainRequest, DeleteBanRequest, DeleteDomainRequest, Domain, DropStreamRequest,
    GetDomainRequest, GetPushKeysRequest, ListBansRequest, ListDomainsRequest, UpdateDomainRequest,
};
use serde_json::{Value, json};
use shared::time::{Clock as _, System};

use super::{Done, PAGE, connect, instant, parse_stream, print, said, stream_json, stream_name, table, when};
use crate::cli::{Client, DomainCommand};

pub(crate) async fn run(command: DomainCommand) -> Done {
    match command {
        DomainCommand::Create { domain, open, client } => {
            let request = CreateDomainRequest {
                name: domain,
                open,
                master_key: String::new(),
            };
            let answer = DomainsClient::new(connect(&client)?).create_domain(request).await;
            show(&client, answer.map_err(said)?.into_inner().domain)
        }
        DomainCommand::List { client } => {
            let answer = DomainsClient::new(connect(&client)?)
                .list_domains(ListDomainsRequest {})
                .await;
            let all = answer.map_err(said)?.into_inner().domains;
            let document = json!({ "domains": all.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&HEADINGS, &all.iter().map(row).collect::<Vec<_>>())
            })
        }
        DomainCommand::Get { domain, client } => {
            let request = GetDomainRequest { name: domain };
            let answer = DomainsClient::new(connect(&client)?).get_domain(request).await;
            show(&client, answer.map_err(said)?.into_inner().domain)
        }
        DomainCommand::Update {
            domain,
            enabled,
            push_auth,
            master_key,
            backup_key,
            grace,
            client,
        } => {
            let grace = grace.map(|grace| Duration::from(grace).as_secs());
            let request = UpdateDomainRequest {
                name: domain,
                enabled,
                push_auth,
                master_key: master_key.map(read_key).transpose()?,
                backup_key: backup_key.map(read_key).transpose()?,
                grace_s: grace.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            };
            let answer = DomainsClient::new(connect(&client)?).update_domain(request).await;
            show(&client, answer.map_err(said)?.into_inner().domain)
        }
        DomainCommand::Delete { domain, client } => {
            let request = DeleteDomainRequest { name: domain.clone() };
            DomainsClient::new(connect(&client)?)
                .delete_domain(request)
                .await
                .map_err(said)?;
            print(&client, &json!({ "deleted": domain }), || {
                format!("domain {domain} deleted\n")
            })
        }
        DomainCommand::Keys { domain, client } => {
            let request = GetPushKeysRequest { name: domain };
            let answer = DomainsClient::new(connect(&client)?).get_push_keys(request).await;
            let keys = answer.map_err(said)?.into_inner();
            let document = json!({ "master_key": keys.master_key, "backup_key": keys.backup_key });
            print(&client, &document, || {
                format!("master  {}\nbackup  {}\n", keys.master_key, keys.backup_key)
            })
        }
        command => streams(command).await,
    }
}

/// What a single stream may.
async fn streams(command: DomainCommand) -> Done {
    match command {
        DomainCommand::Drop { stream, client } => {
            let request = DropStreamRequest {
                stream: Some(parse_stream(&stream)?),
            };
            DomainsClient::new(connect(&client)?)
                .drop_stream(request)
                .await
                .map_err(said)?;
            print(&client, &json!({ "dropped": stream }), || format!("{stream} dropped\n"))
        }
        DomainCommand::Ban {
            stream,
            until,
            reason,
            client,
        } => {
            let now = System::new().now().as_millis();
            let request = CreateBanRequest {
                stream: Some(parse_stream(&stream)?),
                until_ms: until.map_or(0, |until| until.ms(now)),
                reason,
            };
            let answer = DomainsClient::new(connect(&client)?).create_ban(request).await;
            let ban = answer
                .map_err(said)?
                .into_inner()
                .ban
                .ok_or("the coordinator sent no ban")?;
            print(&client, &ban_document(&ban), || table(&BAN_HEADINGS, &[ban_row(&ban)]))
        }
        DomainCommand::Bans { client } => {
            let mut service = DomainsClient::new(connect(&client)?);
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListBansRequest {
                    page_size: PAGE,
                    page_token,
                };
                let page = service.list_bans(request).await.map_err(said)?.into_inner();
                all.extend(page.bans);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            let document = json!({ "bans": all.iter().map(ban_document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&BAN_HEADINGS, &all.iter().map(ban_row).collect::<Vec<_>>())
            })
        }
        DomainCommand::Unban { stream, client } => {
            let request = DeleteBanRequest {
                stream: Some(parse_stream(&stream)?),
            };
            DomainsClient::new(connect(&client)?)
                .delete_ban(request)
                .await
                .map_err(said)?;
            print(&client, &json!({ "deleted": stream }), || {
                format!("{stream} may be pushed\n")
            })
        }
        _ => Ok(()),
    }
}

/// A key has no place in a shell's history: `-` reads it from standard input.
fn read_key(key: String) -> Result<String, Box<dyn Error + Send + Sync>> {
    if key != "-" {
        return Ok(key);
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn show(client: &Client, domain: Option<Domain>) -> Done {
    let domain = domain.ok_or("the coordinator sent no domain")?;
    print(client, &document(&domain), || table(&HEADINGS, &[row(&domain)]))
}

const HEADINGS: [&str; 5] = ["domain", "takes pushes", "asks for keys", "good for", "made"];
const BAN_HEADINGS: [&str; 4] = ["stream", "since", "until", "reason"];

fn document(domain: &Domain) -> Value {
    json!({
        "domain": domain.name,
        "enabled": domain.enabled,
        "push_auth": domain.push_auth,
        "grace_s": domain.grace_s,
        "has_master_key": domain.has_master_key,
        "has_backup_key": domain.has_backup_key,
        "created": instant(domain.created_ms),
    })
}

fn row(domain: &Domain) -> Vec<String> {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    vec![
        domain.name.clone(),
        yes(domain.enabled),
        yes(domain.push_auth),
        format!("{} s", domain.grace_s),
        when(domain.created_ms),
    ]
}

fn ban_document(ban: &Ban) -> Value {
    json!({
        "stream": stream_json(ban.stream.as_ref()),
        "created": instant(ban.created_ms),
        "until": instant(ban.until_ms),
        "reason": ban.reason,
    })
}

fn ban_row(ban: &Ban) -> Vec<String> {
    vec![
        stream_name(ban.stream.as_ref()),
        when(ban.created_ms),
        when(ban.until_ms),
        ban.reason.clone(),
    ]
}
