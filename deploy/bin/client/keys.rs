//! `aircheck key …`

use proto::v1::keys_client::KeysClient;
use proto::v1::{AccessKey, CreateKeyRequest, DisableKeyRequest, ListKeysRequest, ResealSecretsRequest};
use serde_json::{Value, json};

use super::{Done, connect, instant, print, said, table, when};
use crate::cli::KeyCommand;

pub(crate) async fn run(command: KeyCommand) -> Done {
    match command {
        KeyCommand::Create {
            note,
            read_only,
            domain,
            client,
        } => {
            let request = CreateKeyRequest {
                note,
                read_only,
                domains: domain,
            };
            let answer = KeysClient::new(connect(&client)?)
                .create_key(request)
                .await
                .map_err(said)?
                .into_inner();
            let key = answer.key.ok_or("the coordinator sent no key")?;
            let mut document = document(&key);
            if let Some(document) = document.as_object_mut() {
                document.insert("secret_key".to_owned(), json!(answer.secret_key));
            }
            print(&client, &document, || {
                format!(
                    "SecretId   {}\nSecretKey  {}\nThe secret is not shown again.\n",
                    key.secret_id, answer.secret_key
                )
            })
        }
        KeyCommand::List { client } => {
            let answer = KeysClient::new(connect(&client)?)
                .list_keys(ListKeysRequest {})
                .await
                .map_err(said)?
                .into_inner();
            let document = json!({ "keys": answer.keys.iter().map(document).collect::<Vec<_>>() });
            print(&client, &document, || {
                table(&HEADINGS, &answer.keys.iter().map(row).collect::<Vec<_>>())
            })
        }
        KeyCommand::Disable { secret_id, client } => {
            let answer = KeysClient::new(connect(&client)?)
                .disable_key(DisableKeyRequest { secret_id })
                .await
                .map_err(said)?
                .into_inner();
            let key = answer.key.ok_or("the coordinator sent no key")?;
            print(&client, &document(&key), || table(&HEADINGS, &[row(&key)]))
        }
        KeyCommand::Reseal { client } => {
            let answer = KeysClient::new(connect(&client)?)
                .reseal_secrets(ResealSecretsRequest {})
                .await
                .map_err(said)?
                .into_inner();
            let document = json!({ "resealed": answer.resealed, "total": answer.total });
            print(&client, &document, || {
                format!("{} of {} secrets sealed anew\n", answer.resealed, answer.total)
            })
        }
    }
}

const HEADINGS: [&str; 6] = ["id", "may", "domains", "made", "disabled", "note"];

fn may(key: &AccessKey) -> &'static str {
    if key.read_only { "read" } else { "manage" }
}

fn document(key: &AccessKey) -> Value {
    json!({
        "secret_id": key.secret_id,
        "note": key.note,
        "may": may(key),
        "domains": key.domains,
        "created": instant(key.created_ms),
        "disabled": instant(key.disabled_ms),
    })
}

fn row(key: &AccessKey) -> Vec<String> {
    let domains = match key.domains.is_empty() {
        true => "*".to_owned(),
        false => key.domains.join(","),
    };
    vec![
        key.secret_id.clone(),
        may(key).to_owned(),
        domains,
        when(key.created_ms),
        when(key.disabled_ms),
        key.note.clone(),
    ]
}
