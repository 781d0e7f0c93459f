//! Entries of [`bad_input`](super::bad_input) for compositions and for who may push.

use prost::Message;
use proto::v1;
use tonic::Code;

fn key() -> Option<v1::StreamKey> {
    Some(v1::StreamKey {
        domain: "d".into(),
        app: "live".into(),
        stream: "s".into(),
    })
}

fn entry(message: &impl Message, code: Code) -> (Vec<u8>, Code) {
    (message.encode_to_vec(), code)
}

/// As of [`bad_input`](super::bad_input); `id` names nothing.
pub(crate) fn entries(id: &str) -> Vec<(&'static str, (Vec<u8>, Code))> {
    let composition = v1::CreateCompositionRequest {
        pieces: vec![v1::Piece {
            file_id: id.to_owned(),
            ..Default::default()
        }],
        name: "joined".into(),
        ..Default::default()
    };
    let get = v1::GetCompositionRequest {
        composition_id: id.to_owned(),
    };
    let name = || "none".to_owned();
    let domain = v1::CreateDomainRequest {
        name: "new".into(),
        ..Default::default()
    };
    let update = v1::UpdateDomainRequest {
        name: name(),
        enabled: Some(false),
        ..Default::default()
    };
    let ban = v1::CreateBanRequest {
        stream: key(),
        ..Default::default()
    };
    let list = v1::ListCompositionsRequest::default();
    vec![
        ("Compositions/CreateComposition", entry(&composition, Code::NotFound)),
        ("Compositions/GetComposition", entry(&get, Code::NotFound)),
        ("Compositions/ListCompositions", entry(&list, Code::Ok)),
        ("Domains/CreateDomain", entry(&domain, Code::Ok)),
        (
            "Domains/GetDomain",
            entry(&v1::GetDomainRequest { name: name() }, Code::NotFound),
        ),
        ("Domains/ListDomains", entry(&v1::ListDomainsRequest {}, Code::Ok)),
        ("Domains/UpdateDomain", entry(&update, Code::NotFound)),
        (
            "Domains/DeleteDomain",
            entry(&v1::DeleteDomainRequest { name: name() }, Code::NotFound),
        ),
        (
            "Domains/GetPushKeys",
            entry(&v1::GetPushKeysRequest { name: name() }, Code::NotFound),
        ),
        (
            "Domains/DropStream",
            entry(&v1::DropStreamRequest { stream: key() }, Code::Ok),
        ),
        ("Domains/CreateBan", entry(&ban, Code::Ok)),
        ("Domains/ListBans", entry(&v1::ListBansRequest::default(), Code::Ok)),
        (
            "Domains/DeleteBan",
            entry(&v1::DeleteBanRequest { stream: key() }, Code::Ok),
        ),
    ]
}
